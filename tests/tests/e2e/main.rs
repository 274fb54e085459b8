//! The end-to-end tests: sandboxes on a real `/dev/kvm`, and the command from outside.
//!
//! They are modules of one program, so that what they test is linked once, and runs of one process
//! under `cargo test`: a test that looks at its whole process, or changes it (descriptors, threads,
//! limits, signals, the subscriber), runs [`alone!`](wakebox_tests::alone). Programs of their own are
//! those that replace the C library's `ioctl`, and the hostile guests.

mod boot;
mod brought;
mod callbacks;
mod calls;
mod cancel;
mod cli;
mod copies;
mod counterparts;
mod crates;
mod demos;
mod detached;
mod embedder;
mod ends;
mod executor;
mod files;
mod gdb;
mod grants;
mod host_fns;
mod interfaces;
mod jail;
mod jail_options;
mod json;
mod kill;
mod ladder;
mod leaks;
mod limits;
mod links;
mod loader;
mod memory;
mod names;
mod neighbours;
mod net;
mod no_lost_wakeups;
mod ops;
mod outputs;
mod outside;
mod pictures;
mod policy;
mod pools;
mod processors;
mod resolve;
mod scarcity;
mod soak;
mod spread;
mod stdin;
mod telemetry;
mod template_files;
mod templates;
mod timeline;
mod timers;
mod trace;
mod tracks;
mod udp;
mod unix;
mod urgent;
mod views;
mod waits;
mod watched;
mod windows;
