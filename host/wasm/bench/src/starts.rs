//! How long a start takes, and what a second instance takes of memory.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::duplex;
use wakebox::template::{Open, When};
use wakebox::{Image, Output, Sandbox, Template};

const HELLO: &str = include_str!("../../tests/modules/hello.wat");
const TIMES: usize = 15;
const MEMORY: u64 = 256 << 20;

/// The command, built beside this program.
fn wakebox() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("wakebox"))
}

/// From the start of a process to its first line.
fn first_line(app: &Path) -> Result<Duration> {
    let start = Instant::now();
    let mut command = Command::new(wakebox()?);
    command.arg("run").arg(app).args(["--mem", "256M"]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().context("it has a standard output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let time = start.elapsed();
    let status = child.wait()?;
    ensure!(
        status.success() && !line.is_empty(),
        "{} failed: {status}",
        app.display()
    );
    Ok(time)
}

fn least_first_line(app: &Path) -> Result<Duration> {
    // The first compiles, the second finds that it is compiled.
    for _ in 0..2 {
        first_line(app)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let times = (0..TIMES).map(|_| first_line(app));
    let times: Result<Vec<_>> = times.collect();
    times?.into_iter().min().context("there are several")
}

pub(crate) async fn all() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("wakebox-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let hello = folder.join("hello.wasm");
    std::fs::write(&hello, wat::parse_str(HELLO)?)?;
    let time = least_first_line(&hello);
    crate::row(
        "hello (preview 1), process to first line, cached",
        time?,
        None,
        "at most 5 ms",
    );
    match std::env::var_os("WAKEBOX_PYTHON").map(PathBuf::from) {
        Some(python) => self::python(&python, &folder).await?,
        None => println!(
            "CPython was not run: WAKEBOX_PYTHON=hello.wasm says which component of componentize-py is"
        ),
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn python(component: &Path, folder: &Path) -> Result<()> {
    let time = least_first_line(component)?;
    crate::row(
        "CPython, process to first line, cached",
        time,
        None,
        "at most 50 ms",
    );
    let image = folder.join("python.wbx");
    std::fs::write(
        &image,
        wakebox_wasm::Cache::open(&wakebox_wasm::Cache::path()?)?
            .image(&std::fs::read(component)?, |note| {
                eprintln!("note: {note:#}")
            })?,
    )?;
    let image = Image::mapped(std::fs::File::open(&image)?, &image)?;
    let mut sandbox = Sandbox::builder().guest(&image).memory(MEMORY).build()?;
    let asked = sandbox.handle().snapshot(When::GuestAsks, Open::Refuse);
    let (_, template) = tokio::join!(sandbox.run(), asked);
    let template = template?;
    let mut least = Duration::MAX;
    for _ in 0..TIMES {
        let start = Instant::now();
        template.spawn().stdout(Output::Null).build()?.run().await?;
        least = least.min(start.elapsed());
    }
    crate::row(
        "CPython from a template, to its end",
        least,
        None,
        "at most 5 ms",
    );
    second(&template).await
}

/// What lies in memory: private and shared, and of that what is no file's, in KiB.
fn memory() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let of = |name: &str| -> Result<u64> {
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(number.context("the kernel tells of memory")?.parse()?)
    };
    Ok((of("Pss:")?, of("Anonymous:")?))
}

/// Two instances stand where their output is not taken.
async fn second(template: &Template) -> Result<()> {
    let mut standing = Vec::new();
    let mut memories = vec![memory()?];
    for _ in 0..3 {
        let (said, hears) = duplex(1);
        let builder = template.spawn().stdout(Output::writer(said));
        standing.push((builder.build()?.start(), hears));
        tokio::time::sleep(Duration::from_secs(1)).await;
        memories.push(memory()?);
    }
    let [.., before, after] = memories[..] else {
        unreachable!("there are four")
    };
    let all = after.0.saturating_sub(before.0) as f64 / 1024.0;
    let own = after.1.saturating_sub(before.1) as f64 / 1024.0;
    println!(
        "{:<48} {:>8.2} MiB {:>12} {:>8}  at most 1, beyond {own:.2} MiB that it has written",
        "memory of another instance of CPython",
        (all - own).max(0.0),
        "",
        ""
    );
    for (running, hears) in standing {
        drop((running, hears));
    }
    Ok(())
}
