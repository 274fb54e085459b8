//! What the README shows under "In your program", as a program: it runs `target/release/hello`.

use wakebox::{Output, Policy, Sandbox};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sandbox = Sandbox::builder()
        .guest("target/release/hello")
        .memory(32 << 20)
        .args(["friend"])
        .policy(Policy::new().allow_connect("api.example.com:443".parse()?))
        .stdout(Output::Inherit)
        .build()?;
    let outcome = sandbox.run().await?; // on any Tokio runtime; run_blocking() without one
    println!("{outcome}");
    Ok(())
}
