//! Programs of other people that tests talk to, and servers that end with their test.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What CI installs: lines of a program, its package and words about it.
const PACKAGES: &str = include_str!("../../.ci/packages");

/// A server that has not begun to answer by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command that runs a program which tests need.
///
/// # Panics
///
/// If it is not there: the message says which package has it. Also if it is not listed in
/// `.ci/packages`, for then CI would not have it.
pub fn program(name: &str) -> Command {
    let package = package(name);
    match find(name) {
        Some(path) => Command::new(path),
        None => panic!(
            "`{name}` is not installed, and this test talks to it. On Debian: apt-get install \
             {package}"
        ),
    }
}

/// The package of a program that is listed in `.ci/packages` and not there.
///
/// # Panics
///
/// If it is not listed.
#[must_use]
pub fn missing(name: &str) -> Option<&'static str> {
    find(name).is_none().then(|| package(name))
}

/// Debian's package of a program.
fn package(name: &str) -> &'static str {
    let package = PACKAGES
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(name)).then(|| words.next()).flatten());
    package.unwrap_or_else(|| panic!("`{name}` is not listed in .ci/packages"))
}

/// Where a program is: in the usual search path, or where Debian puts servers.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin"));
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Runs a program to its end and returns what it wrote.
///
/// # Panics
///
/// If it fails; the message has all that it wrote.
#[track_caller]
pub fn output(command: &mut Command) -> Vec<u8> {
    let output: Output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({})\n--- stdout\n{}--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// An address of this host that was free a moment ago.
///
/// # Panics
///
/// If there is none.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound")
}

/// A server with a folder of its own. Both are gone when it is dropped, and the server also when
/// the test's process ends in any other way.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Server {
    /// Starts a server that `command` makes, given its folder and an address to listen at, and
    /// waits until it listens there. What it prints goes to the test's standard error if `command`
    /// does not say otherwise.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start(command: impl Fn(&Path, SocketAddr) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let mut command = command(folder.path(), address);
        // SAFETY: between `fork` and `exec` it makes one system call and touches no memory.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self {
            child,
            folder,
            address,
        };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = server.child.try_wait() {
                panic!("{command:?} ended before it listened ({status})");
            }
            assert!(start.elapsed() < PATIENCE, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A Redis server, which also listens at the Unix socket `redis.sock` of its folder.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn redis() -> Self {
        Self::start(|folder, address| {
            let mut command = program("redis-server");
            command
                .args(["--port", &address.port().to_string()])
                .args(["--bind", &address.ip().to_string()])
                .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
                .args(["--unixsocket", "redis.sock", "--dir", "."])
                .current_dir(folder);
            command
        })
    }

    /// An nginx that serves these files, also at the Unix socket `nginx.sock` of its folder.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn nginx(files: &[(&str, &[u8])]) -> Self {
        Self::start(|folder, address| {
            let site = folder.join("site");
            std::fs::create_dir(&site).expect("a folder for the files");
            for (name, bytes) in files {
                std::fs::write(site.join(name), bytes).expect("a file is written");
            }
            let here = folder.display();
            let config = format!(
                "daemon off; master_process off; pid {here}/pid; error_log stderr crit;
                 events {{ worker_connections 512; }}
                 http {{
                     access_log off; default_type application/octet-stream;
                     client_body_temp_path {here}; proxy_temp_path {here};
                     fastcgi_temp_path {here}; uwsgi_temp_path {here}; scgi_temp_path {here};
                     server {{
                         listen {address}; listen unix:{here}/nginx.sock;
                         root {here}/site;
                     }}
                 }}"
            );
            let file = folder.join("nginx.conf");
            std::fs::write(&file, config).expect("the configuration is written");
            let mut command = program("nginx");
            command.arg("-e").arg("stderr").arg("-c").arg(file);
            command
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
