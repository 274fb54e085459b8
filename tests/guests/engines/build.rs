//! Compiles the C part of `in-c`.

fn main() {
    println!("cargo::rerun-if-changed=c");
    cc::Build::new()
        .file("c/echo.c")
        .include("c")
        .warnings_into_errors(true)
        // There is no C library.
        .flag("-ffreestanding")
        // The canary lies in a variable: a guest has no thread-local storage.
        .flag("-fstack-protector-all")
        .flag("-mstack-protector-guard=global")
        .compile("echo");
}
