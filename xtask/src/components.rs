//! Demos that are WebAssembly components: what makes them, what compiles them, and what runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// The compiler of Python, as `pip` calls it.
const COMPONENTIZE: &str = "componentize-py==0.25.1";

/// A component of `tests/guests/wasm/python`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Component {
    /// Its source, without the ending.
    source: &'static str,
    /// The file of its world, from the repository's root, and the world.
    world: (&'static str, &'static str),
    /// What is run, told the component and the arguments.
    command: fn(&Path, &[String]) -> Result<Vec<String>>,
}

/// Runs a script.
pub(crate) const PYTHON: Component = Component {
    source: "script",
    world: ("tests/guests/wasm/python/world.wit", "script"),
    command: script,
};

/// Answers HTTP.
pub(crate) const SERVE: Component = Component {
    source: "handler",
    world: ("host/wasm/tests/components/http/world.wit", "server"),
    command: serve,
};

/// What CPython takes, with what it imports.
const MEMORY: [&str; 2] = ["--mem", "256M"];

/// `run COMPONENT ... -- /script/FILE ARGUMENTS`: the script's folder is granted for reading, and what the loop of `asyncio`
/// takes to wake itself.
fn script(component: &Path, args: &[String]) -> Result<Vec<String>> {
    let (script, rest) = match args.split_first() {
        Some((script, rest)) => (PathBuf::from(script), rest),
        None => (
            workspace::root().join("tests/guests/wasm/python/ten.py"),
            args,
        ),
    };
    let script = script
        .canonicalize()
        .with_context(|| format!("the script {}", script.display()))?;
    let (Some(folder), Some(name)) = (script.parent(), script.file_name()) else {
        bail!("{} is no script", script.display());
    };
    let mut command = vec!["run".into(), component.display().to_string()];
    command.extend(MEMORY.map(Into::into));
    command.push("--dir".into());
    command.push(format!("{}:/script:ro", folder.display()));
    for option in [
        "--allow-listen",
        "127.0.0.1:0",
        "--allow-connect",
        "127.0.0.1",
        "--",
    ] {
        command.push(option.into());
    }
    command.push(format!("/script/{}", name.display()));
    command.extend_from_slice(rest);
    Ok(command)
}

/// `serve COMPONENT --allow-listen ADDRESS`.
fn serve(component: &Path, args: &[String]) -> Result<Vec<String>> {
    let address = match args {
        [] => "127.0.0.1:8080",
        [address] => address,
        _ => bail!("`serve` takes an address to listen at, and nothing else"),
    };
    let mut command = vec!["serve".into(), component.display().to_string()];
    command.extend(MEMORY.map(Into::into));
    command.extend(["--allow-listen".into(), address.to_owned()]);
    Ok(command)
}

impl Component {
    /// Makes it, compiles it, and runs it with the command `wakebox`.
    pub(crate) fn run(&self, wakebox: &Path, wake: &str, args: &[String]) -> Result<ExitCode> {
        let component = self.made()?;
        let compiler = compiler()?;
        let mut command = Command::new(wakebox);
        let words = (self.command)(&component, args)?;
        // Options stand before the guest's arguments.
        let (options, rest) = words.split_at(2);
        command.args(options).args(["--wake", wake]).args(rest);
        command.env("PATH", before_others(&compiler)?);
        Ok(process::exit_code(process::status(&mut command)?))
    }

    /// The component, newer than its source.
    fn made(&self) -> Result<PathBuf> {
        let sources = workspace::root().join("tests/guests/wasm/python");
        let source = sources.join(self.source).with_extension("py");
        let folder = folder()?;
        let component = folder.join(self.source).with_extension("wasm");
        let changed = |file: &Path| file.metadata().and_then(|file| file.modified());
        if let (Ok(made), Ok(written)) = (changed(&component), changed(&source))
            && made > written
        {
            return Ok(component);
        }
        let componentize = componentize(&folder)?;
        eprintln!("Making a component of {} ...", source.display());
        let (file, world) = self.world;
        // Not in its place before it is whole.
        let unfinished = component.with_extension("part");
        let mut command = Command::new(componentize);
        command.current_dir(&sources).arg("-q");
        command.arg("-d").arg(workspace::root().join(file));
        command.args(["-w", world, "componentize", self.source, "-o"]);
        process::check(command.arg(&unfinished))?;
        std::fs::rename(&unfinished, &component)?;
        Ok(component)
    }
}

/// Where what is made lies.
fn folder() -> Result<PathBuf> {
    let folder = workspace::target()?.join("components");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// `componentize-py`: in `PATH`, or of PyPI in a folder of its own.
fn componentize(folder: &Path) -> Result<PathBuf> {
    let name = "componentize-py";
    let has = |program: &Path| {
        let said = Command::new(program).arg("--version").output();
        said.is_ok_and(|said| said.status.success())
    };
    if has(Path::new(name)) {
        return Ok(name.into());
    }
    let environment = folder.join("python");
    let own = environment.join("bin").join(name);
    if !has(&own) {
        eprintln!(
            "Fetching {COMPONENTIZE} of PyPI into {} ...",
            environment.display()
        );
        let made = process::check(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
        );
        made.context(
            "components of Python are made with `python3`, its `venv` and `pip`: on Debian, \
             apt-get install python3-venv",
        )?;
        let pip = environment.join("bin/pip");
        process::check(Command::new(pip).args(["install", "--quiet", COMPONENTIZE]))?;
    }
    Ok(own)
}

/// Builds `wakebox-wasm`, and returns the folder where it is.
fn compiler() -> Result<PathBuf> {
    let target = workspace::target()?;
    eprintln!(
        "Building the compiler of WebAssembly, wakebox-wasm: the first time takes minutes ..."
    );
    // Optimized, because one that is not takes minutes for Python itself.
    let mut build = process::cargo();
    build.args(
        "build --locked --release --bin wakebox-wasm --manifest-path host/wasm/Cargo.toml"
            .split(' '),
    );
    process::check(build.arg("--target-dir").arg(&target))?;
    Ok(target.join("release"))
}

/// `PATH`, with a folder before all others.
fn before_others(folder: &Path) -> Result<std::ffi::OsString> {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&others));
    Ok(std::env::join_paths(all)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_its_folder_and_its_arguments() {
        let folder = workspace::root().canonicalize().unwrap();
        let file = folder.join("README.md").display().to_string();
        let words = script(Path::new("a.wasm"), &[file, "--one".into()]).unwrap();
        assert!(words.contains(&format!("{}:/script:ro", folder.display())));
        let rest = ["/script/README.md".into(), "--one".into()];
        assert!(words.ends_with(&rest), "{words:?}");
        assert!(script(Path::new("a.wasm"), &["/nowhere/at.all".into()]).is_err());
    }

    #[test]
    fn one_address_is_served() {
        let words = serve(Path::new("a.wasm"), &["[::1]:80".into()]).unwrap();
        assert!(words.ends_with(&["--allow-listen".into(), "[::1]:80".into()]));
        assert!(serve(Path::new("a.wasm"), &["a".into(), "b".into()]).is_err());
    }
}
