//! A browser without a window, for pages that Wakebox writes: Chromium, driven through ChromeDriver
//! (Debian's packages `chromium` and `chromium-driver`).

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

use crate::programs::program;

/// The driver and the browser; both are gone when this is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    /// What gives it orders.
    pub client: Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one, with a window of so many pixels.
    ///
    /// # Panics
    ///
    /// If Chromium or its driver is not there or does not start; the message says what to install.
    pub async fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().expect("a directory for the browser's profile");
        // ChromeDriver finds the browser itself; this says what to install if it is not there.
        program("chromium");
        let mut driver = program("chromedriver")
            .arg("--port=0")
            // What both leave behind goes with the profile.
            .env("TMPDIR", profile.path())
            // The browser is in its group.
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let output = driver.stdout.take().expect("it was asked for");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("chromedriver ended before it said which port it listens on");
        let client = connect(port, profile.path(), width, height).await;
        Self {
            driver,
            client,
            _profile: profile,
        }
    }

    /// Opens a file, and waits until the page says that it is drawn.
    ///
    /// # Panics
    ///
    /// If it does not get there.
    pub async fn open(&self, page: &Path) {
        let page = page.canonicalize().expect("the page is there");
        let address = format!("file://{}", page.display());
        self.client.goto(&address).await.expect("the page opens");
        let drawn = fantoccini::Locator::Css("html[data-ready=true]");
        let wait = self.client.wait().for_element(drawn);
        wait.await.expect("the page is drawn");
    }

    /// What an expression of JavaScript gives.
    ///
    /// # Panics
    ///
    /// If it throws.
    pub async fn eval(&self, expression: &str) -> serde_json::Value {
        let script = format!("return ({expression});");
        let result = self.client.execute(&script, Vec::new()).await;
        result.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&self.driver);
        let _ = self.driver.wait();
    }
}

/// Ends the group of processes that one leads. ChromeDriver, asked to end, leaves the browser behind.
fn end(leader: &Child) {
    if let Ok(group) = i32::try_from(leader.id()) {
        // SAFETY: `killpg` touches no memory; the leader has not been waited for, so the number is
        // still its group's.
        unsafe { libc::killpg(group, libc::SIGKILL) };
    }
}

async fn connect(port: u16, profile: &Path, width: u32, height: u32) -> Client {
    let options = json!({
        "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--disable-sync",
            "--force-device-scale-factor=1",
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.display()),
        ],
    });
    let mut capabilities = serde_json::Map::new();
    capabilities.insert("goog:chromeOptions".into(), options);
    ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
        .expect("chromedriver starts Chromium")
}
