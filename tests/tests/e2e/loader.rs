//! What is not a guest is refused, with a sentence that says why and what to do.

use wakebox::{Image, Sandbox};
use wakebox_abi::ABI_VERSION;
use wakebox_abi::layout::{IMAGE_MAX, IMAGE_MIN};
use wakebox_tests::elf::{CODE, Elf, R, Segment, W, X, code};

/// What the loader says to these bytes.
fn refusal(bytes: impl Into<Vec<u8>>) -> String {
    let error =
        Image::from_bytes(bytes).expect_err("this is not a guest, and it was taken for one");
    format!("{:#}", anyhow::Error::from(error))
}

/// What the loader says to a guest with one thing wrong.
fn broken(breakage: impl FnOnce(&mut Elf)) -> String {
    let mut elf = Elf::guest(&code::exit(0));
    breakage(&mut elf);
    refusal(elf.to_bytes())
}

#[track_caller]
fn says(sentence: &str, what: &str) {
    assert!(sentence.contains(what), "expected `{what}` in: {sentence}");
}

#[test]
fn an_empty_file() {
    says(&refusal([]), "the file is empty");
}

#[test]
fn a_text_file() {
    says(&refusal(*b"#!/bin/sh\necho hello\n"), "not an ELF file");
}

#[test]
fn a_program_for_this_host() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    says(&refusal(own), "not a guest");
}

#[test]
fn another_machine() {
    says(&broken(|elf| elf.machine = 183), "another machine");
}

#[test]
fn thirty_two_bits() {
    says(&broken(|elf| elf.class = 1), "32-bit");
}

#[test]
fn an_object_file() {
    says(&broken(|elf| elf.kind = 1), "not a program");
}

#[test]
fn no_note() {
    says(&broken(|elf| elf.version = None), "no Wakebox note");
}

#[test]
fn another_version_of_the_interface() {
    let sentence = broken(|elf| elf.version = Some(ABI_VERSION + 1));
    says(&sentence, &format!("version {}", ABI_VERSION + 1));
    says(&sentence, &format!("version {ABI_VERSION}"));
}

#[test]
fn a_feature_that_no_host_has() {
    says(&broken(|elf| elf.features = 1 << 63), "features");
}

#[test]
fn a_shared_library() {
    let sentence = broken(|elf| elf.needed = Some("libc.so.6"));
    says(&sentence, "libc.so.6");
    says(&sentence, "cargo tree");
}

#[test]
fn thread_local_storage() {
    says(&broken(|elf| elf.tls = true), "thread-local");
}

#[test]
fn an_executable_stack() {
    says(
        &broken(|elf| elf.executable_stack = true),
        "executable stack",
    );
}

#[test]
fn a_writable_and_executable_segment() {
    says(
        &broken(|elf| elf.segments[0].rights = R | W | X),
        "writable and executable",
    );
}

#[test]
fn overlapping_segments() {
    let sentence = broken(|elf| elf.segments.push(Segment::new(CODE + 4, R, [0; 8])));
    says(&sentence, "overlap");
}

#[test]
fn segments_that_share_a_page() {
    let sentence = broken(|elf| elf.segments.push(Segment::new(CODE + 2048, R | W, [0; 8])));
    says(&sentence, "share a page");
}

#[test]
fn an_entry_outside_the_code() {
    says(&broken(|elf| elf.entry = CODE + (1 << 20)), "entry point");
    let in_data = broken(|elf| {
        elf.segments.push(Segment::new(CODE + 0x1_0000, R, [0; 8]));
        elf.entry = CODE + 0x1_0000;
    });
    says(&in_data, "entry point");
}

#[test]
fn segments_outside_the_image_window() {
    for address in [
        0,
        IMAGE_MIN - 1,
        IMAGE_MAX - 1,
        IMAGE_MAX,
        1 << 40,
        u64::MAX - 4,
    ] {
        let sentence = broken(|elf| elf.segments.push(Segment::new(address, R, [0; 8])));
        says(&sentence, "image window");
    }
}

#[test]
fn more_memory_than_there_is() {
    let mut elf = Elf::guest(&code::exit(0));
    elf.segments[0].memory = 512 << 20;
    let error = Sandbox::builder()
        .guest(elf.to_bytes())
        .memory(256 << 20)
        .build()
        .expect_err("half a gigabyte does not go into a quarter");
    says(&error.to_string(), "at least");
}

#[test]
fn no_segments() {
    says(&broken(|elf| elf.segments.clear()), "segment");
}

#[test]
fn a_file_cut_off_anywhere() {
    let whole = Elf::guest(&code::exit(0)).to_bytes();
    for len in 1..whole.len() {
        refusal(&whole[..len]);
    }
    says(&refusal(&whole[..whole.len() - 1]), "cut off");
}

#[test]
fn any_byte_changed_is_refused_or_loaded_but_never_a_panic() {
    let whole = Elf::guest(&code::exit(0)).to_bytes();
    for at in 0..whole.len() {
        for value in [0, 1, 0x7F, 0x80, 0xFF, !whole[at]] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            // Either is right: what is asserted is that it returns.
            let _ = Image::from_bytes(bytes);
        }
    }
}
