//! Files, a command an argument, a line of output a command: `ok ...` or the error's status.
//!
//! Words of a command are separated by spaces; `PATH` is a path of the guest.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::pin::pin;

use wakebox_guest::fs::{self, File, FileTime, OpenOptions, SeekFrom};
use wakebox_guest::io::{IoBuf, Result, Status};
use wakebox_guest::{env, println, spawn};

type Line = Result<String>;

macro_rules! line {
    ($($arg:tt)*) => { Ok(alloc::format!($($arg)*)) };
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `open OPTIONS PATH [TEXT]`: with letters r, w, a (append), t (truncate), c (create) and n
/// (create new); writes the text and reads everything from the start, where the options allow.
async fn open(options: &str, path: &str, write: &str) -> Line {
    let has = |letter| options.contains(letter);
    let mut file = OpenOptions::new()
        .read(has('r'))
        .write(has('w'))
        .append(has('a'))
        .truncate(has('t'))
        .create(has('c'))
        .create_new(has('n'))
        .open(path)
        .await?;
    file.write_all(write.as_bytes()).await?;
    if !has('r') {
        return line!("written");
    }
    file.seek(SeekFrom::Start(0)).await?;
    let mut all = Vec::new();
    file.read_to_end(&mut all).await?;
    line!("{:?}", text(&all))
}

/// `list PATH`: names, sorted, with a mark for what is not a file.
async fn list(path: &str) -> Line {
    let mut entries = fs::read_dir(path).await?;
    let mut names = Vec::new();
    let mut unreadable = 0;
    loop {
        match entries.next_entry().await {
            Ok(Some(entry)) => {
                let mark = match entry.kind() {
                    fs::FileKind::File => "",
                    fs::FileKind::Directory => "/",
                    fs::FileKind::Symlink => "@",
                    fs::FileKind::Other => "?",
                };
                names.push(alloc::format!("{}{mark}", entry.file_name()));
            }
            Ok(None) => break,
            Err(error) if error.status() == Status::InvalidData => unreadable += 1,
            Err(error) => return Err(error),
        }
    }
    names.sort();
    match names.len() {
        0..20 => line!("{} (unreadable {unreadable})", names.join(" ")),
        many => line!("{many} from {} to {}", names[0], names[many - 1]),
    }
}

/// `cursor PATH`: what a cursor does, on an empty file.
async fn cursor(path: &str) -> Line {
    let mut file = OpenOptions::new().read(true).write(true).open(path).await?;
    file.write_all(b"0123456789").await?;
    let mut seen = vec![file.position()];
    seen.push(file.seek(SeekFrom::End(-3)).await?);
    let mut bytes = [0; 8];
    seen.push(file.read(&mut bytes).await? as u64);
    seen.push(file.read(&mut bytes).await? as u64);
    seen.push(file.seek(SeekFrom::Current(-8)).await?);
    file.read_exact(&mut bytes[3..5]).await?;
    seen.push(file.seek(SeekFrom::Start(20)).await?);
    file.write_all(b"!").await?;
    file.write_at(b"AB", 4).await?;
    seen.push(file.position());
    let before = file.seek(SeekFrom::Current(-100)).await;
    let mut all = vec![0; 30];
    let count = file.read_at(&mut all, 0).await?;
    line!(
        "{seen:?} {:?} {:?} {:?}",
        text(&bytes[..5]),
        before.map_err(|error| error.status()),
        text(&all[..count])
    )
}

/// `append PATH`: where the cursor is of a file that is opened for reading and appending, and what is
/// read there.
async fn append(path: &str) -> Line {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .open(path)
        .await?;
    let mut bytes = [0; 8];
    let mut seen = vec![file.position()];
    let first = file.read(&mut bytes[..2]).await?;
    seen.push(file.position());
    file.write_all(b"one").await?;
    seen.push(file.position());
    let at_end = file.read(&mut bytes[4..]).await?;
    file.seek(SeekFrom::Start(1)).await?;
    seen.push(file.write(b"two").await? as u64);
    seen.push(file.position());
    let mut buf = IoBuf::with_capacity(5).await?;
    buf.extend_from_slice(b"three");
    file.seek(SeekFrom::Start(0)).await?;
    file.write_all_buf(buf).await.0?;
    seen.push(file.position());
    file.set_len(4).await?;
    file.write_all(b"!").await?;
    seen.push(file.position());
    seen.push(file.seek(SeekFrom::Current(-3)).await?);
    file.read_exact(&mut bytes[..3]).await?;
    // It moves no cursor.
    file.write_at(b"?", 0).await?;
    seen.push(file.position());
    line!("{seen:?} {first} {at_end} {:?}", text(&bytes[..3]))
}

/// `sparse PATH OFFSET`: a byte so far behind the start.
async fn sparse(path: &str, offset: u64) -> Line {
    let file = OpenOptions::new().write(true).open(path).await?;
    let count = file.write_at(b"x", offset).await?;
    line!("{count} {}", file.metadata().await?.len())
}

/// `copy FROM TO`: without copying in the guest, and a few reads and writes at once.
async fn copy(from: &str, to: &str) -> Line {
    let from = File::open(from).await?;
    let mut to = File::create(to).await?;
    let mut buf = IoBuf::with_capacity(100_000).await?;
    let mut offset = 0;
    loop {
        let outcome;
        (outcome, buf) = from.read_buf_at(buf, offset).await;
        match outcome? {
            0 => break,
            count => offset += count as u64,
        }
        let outcome;
        (outcome, buf) = to.write_all_buf(buf).await;
        outcome?;
    }
    to.sync_all().await?;
    to.sync_data().await?;
    line!("{offset} {}", to.metadata().await?.len())
}

/// `edges PATH`: lengths and places that are easily got wrong.
async fn edges(path: &str) -> Line {
    let file = OpenOptions::new().read(true).write(true).open(path).await?;
    let nothing = file.read_at(&mut [], 0).await?;
    let behind = file.read_at(&mut [0; 8], 1 << 40).await?;
    let far = file.read_at(&mut [0; 8], u64::MAX).await;
    let (outcome, buf) = file.read_buf_at(IoBuf::with_capacity(0).await?, 0).await;
    let huge = IoBuf::with_capacity(4 << 30).await;
    line!(
        "{nothing} {behind} {:?} {} {} {:?}",
        far.map_err(|error| error.status()),
        outcome?,
        buf.len(),
        huge.map(|buf| buf.len()).map_err(|error| error.status())
    )
}

/// `paths`: that cannot be.
async fn paths() -> Line {
    let long = alloc::format!("/d/{}", "x".repeat(100_000));
    let deep = alloc::format!("/d/{}", "x/".repeat(2_000));
    let mut seen = Vec::new();
    for path in ["", "file", "/d/a\0b", &long, &deep, "/elsewhere"] {
        seen.push(File::open(path).await.map(|_| ()).map_err(|e| e.status()));
    }
    line!("{seen:?}")
}

/// `hoard PATH`: opens it until that fails, closes all, and opens it again.
async fn hoard(path: &str) -> Line {
    let mut files = Vec::new();
    let error = loop {
        match File::open(path).await {
            Ok(file) => files.push(file),
            Err(error) => break error.status(),
        }
    };
    let most = files.len();
    files.clear();
    let again = File::open(path).await.is_ok();
    line!("{most} {error:?} {again}")
}

/// `race PATH COUNT`: reads it so often and tells what was seen how often.
async fn race(path: &str, count: usize) -> Line {
    let mut seen = BTreeMap::<String, u32>::new();
    for _ in 0..count {
        let what = match fs::read(path).await {
            Ok(bytes) => text(&bytes),
            Err(error) => alloc::format!("{:?}", error.status()),
        };
        *seen.entry(what).or_default() += 1;
    }
    line!("{seen:?}")
}

/// `abandon PATH ROUNDS`: starts reads and drops them, while others use the arena. Nothing may
/// appear in a buffer that a dropped read has had.
async fn abandon(path: &str, rounds: usize) -> Line {
    let file = File::open(path).await?;
    for _ in 0..rounds {
        let mut reads = Vec::new();
        for index in 0..8 {
            let buf = IoBuf::with_capacity(1 << 16).await?;
            reads.push(alloc::boxed::Box::pin(file.read_buf_at(buf, index << 16)));
        }
        for read in &mut reads {
            // Submits it.
            let pending = futures_lite::future::poll_once(read).await.is_none();
            assert!(pending, "a read takes a turn at least");
        }
        wakebox_guest::task::yield_now().await;
        drop(reads);
        let mut own = IoBuf::with_capacity(1 << 16).await?;
        own.set_len(1 << 16);
        own.fill(0x55);
        // As many turns as a read takes.
        for _ in 0..20 {
            wakebox_guest::ops::nop().await?;
            if own.iter().any(|byte| *byte != 0x55) {
                return line!("a dropped read wrote into a stranger's buffer");
            }
        }
        let (outcome, buf) = file.read_buf_at(own, 0).await;
        if outcome? == 0 || buf.iter().any(|byte| *byte != 0xAA) {
            return line!("a read brought something else");
        }
    }
    line!("clean")
}

/// `many PATH COUNT`: so many tasks write a part each, at once, and read it back.
async fn many(path: &str, count: u64) -> Line {
    let file = OpenOptions::new().read(true).write(true).open(path).await?;
    let file = alloc::rc::Rc::new(file);
    let tasks: Vec<_> = (0..count)
        .map(|index| {
            let file = file.clone();
            spawn(async move {
                let part = [index as u8; 1000];
                file.write_at(&part, index * 1000).await?;
                let mut back = [0; 1000];
                let read = file.read_at(&mut back, index * 1000).await?;
                Result::Ok(read == 1000 && back == part)
            })
        })
        .collect();
    let mut good = 0;
    for task in tasks {
        good += u32::from(task.await.map_err(|_| Status::Cancelled)??);
    }
    line!("{good}")
}

/// `resume PATH`: a listing and a cursor that were given up go on where they were.
async fn resume(path: &str) -> Line {
    let mut entries = fs::read_dir(path).await?;
    let mut names = 0;
    loop {
        {
            // Given up at once, whether or not it was submitted.
            let mut next = pin!(entries.next_entry());
            if let Some(early) = futures_lite::future::poll_once(&mut next).await {
                match early? {
                    Some(_) => names += 1,
                    None => break,
                }
                continue;
            }
        }
        match entries.next_entry().await? {
            Some(_) => names += 1,
            None => break,
        }
    }
    line!("{names}")
}

/// `touch PATH ACCESSED MODIFIED`: nanoseconds, `keep` or `now`; `ltouch` a link itself. With an `@` before
/// the path, by an open file.
async fn touch(verb: &str, path: &str, accessed: &str, modified: &str) -> Line {
    let time = |text: &str| match text {
        "keep" => FileTime::Keep,
        "now" => FileTime::Now,
        ns => FileTime::At(ns.parse().unwrap_or(0)),
    };
    let (accessed, modified) = (time(accessed), time(modified));
    match (path.strip_prefix('@'), verb) {
        (Some(path), _) => File::open(path).await?.set_times(accessed, modified).await,
        (None, "touch") => fs::set_times(path, accessed, modified).await,
        (None, _) => fs::set_symlink_times(path, accessed, modified).await,
    }?;
    line!("")
}

/// `synced PATH`: writes to it, waiting for the disk each time.
async fn synced(path: &str) -> Line {
    let options = OpenOptions::new().read(true).write(true).create(true);
    for (all, text) in [(false, "data"), (true, "all ")] {
        let mut file = options.synced(true, all).open(path).await?;
        file.write_all(text.as_bytes()).await?;
    }
    let reading = OpenOptions::new()
        .read(true)
        .synced(true, true)
        .open(path)
        .await;
    line!(
        "{:?} {:?}",
        fs::read_to_string(path).await?,
        reading.map(|_| ()).map_err(|error| error.status())
    )
}

async fn command(line: &str) -> Line {
    let mut words = line.splitn(4, ' ');
    let verb = words.next().unwrap_or_default();
    let mut word = || words.next().unwrap_or_default();
    let (a, b, c) = (word(), word(), word());
    match verb {
        "open" => open(a, b, c).await,
        "read" => line!("{:?}", fs::read_to_string(a).await?),
        "write" => fs::write(a, b).await.map(|()| String::new()),
        "list" => list(a).await,
        "mounts" => line!("{}", fs::mounts().await?.join(" ")),
        "stat" | "lstat" => {
            let stat = match verb {
                "stat" => fs::metadata(a).await?,
                _ => fs::symlink_metadata(a).await?,
            };
            let recent = stat.modified() > core::time::Duration::from_secs(1_500_000_000);
            line!(
                "{:?} {} {:o} {recent}",
                stat.kind(),
                stat.len(),
                stat.permissions()
            )
        }
        "exists" => line!("{}", fs::try_exists(a).await?),
        "rename" => fs::rename(a, b).await.map(|()| String::new()),
        "link" => fs::hard_link(a, b).await.map(|()| String::new()),
        "symlink" => fs::symlink(a, b).await.map(|()| String::new()),
        "readlink" => line!("{}", fs::read_link(a).await?),
        "touch" | "ltouch" => touch(verb, a, b, c).await,
        "times" => {
            let stat = fs::symlink_metadata(a).await?;
            line!("{:?} {:?}", stat.accessed(), stat.modified())
        }
        "same" => {
            let (a, b) = (fs::metadata(a).await?, fs::metadata(b).await?);
            line!("{} {}", a.identity() == b.identity(), a.links())
        }
        "synced" => synced(a).await,
        "rm" => fs::remove_file(a).await.map(|()| String::new()),
        "rmdir" => fs::remove_dir(a).await.map(|()| String::new()),
        "mkdir" => fs::create_dir(a).await.map(|()| String::new()),
        "mkdirs" => fs::create_dir_all(a).await.map(|()| String::new()),
        "cut" => {
            let file = OpenOptions::new().write(true).open(a).await?;
            file.set_len(b.parse().unwrap_or(0)).await?;
            line!("{}", file.metadata().await?.len())
        }
        "cut-read" => {
            File::open(a).await?.set_len(0).await?;
            line!("")
        }
        "write-read" => {
            File::open(a).await?.write_all(b"x").await?;
            line!("")
        }
        "cursor" => cursor(a).await,
        "append" => append(a).await,
        "sparse" => sparse(a, b.parse().unwrap_or(0)).await,
        "copy" => copy(a, b).await,
        "edges" => edges(a).await,
        "paths" => paths().await,
        "hoard" => hoard(a).await,
        "race" => race(a, b.parse().unwrap_or(0)).await,
        "abandon" => abandon(a, b.parse().unwrap_or(0)).await,
        "many" => many(a, b.parse().unwrap_or(0)).await,
        "resume" => resume(a).await,
        other => line!("there is no `{other}`"),
    }
}

#[wakebox_guest::main]
async fn main() {
    for line in env::args() {
        match command(line).await {
            Ok(text) => println!("{}", alloc::format!("ok {text}").trim_end()),
            Err(error) => println!("{:?}", error.status()),
        }
    }
}
