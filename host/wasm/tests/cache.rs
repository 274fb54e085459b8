//! Compiled code that is kept: what is used again, what is not, and what is no reason to fail.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use wakebox_wasm::Cache;

const ONE: &[u8] = b"(component)";
const OTHER: &[u8] = b"(component (core module))";

/// The image of a component, for which nothing is in the way.
fn image(cache: &Path, component: &[u8]) -> Vec<u8> {
    let cache = Cache::open(cache).unwrap();
    cache.image(component, |note| panic!("{note:#}")).unwrap()
}

/// As [`image`], with what was in the way.
fn image_and_note(cache: &Path, component: &[u8]) -> (Vec<u8>, String) {
    let mut said = String::new();
    let cache = Cache::open(cache).unwrap();
    let image = cache.image(component, |note| said += &format!("{note:#}\n"));
    (image.unwrap(), said)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

/// Which file it is: one that is written anew is another.
fn identity(file: &Path) -> u64 {
    fs::metadata(file).unwrap().ino()
}

/// Whether a file is no image, but says which one is a component's.
fn is_line(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_str().unwrap();
    name.starts_with("known-")
}

#[test]
fn a_component_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = image(folder.path(), ONE);
    assert!(first == wakebox_wasm::image(ONE).unwrap());
    let [file] = &*files(folder.path()) else {
        panic!("one component is one file");
    };
    let before = identity(file);
    assert!(image(folder.path(), ONE) == first);
    assert_eq!(identity(file), before);
    assert!(image(folder.path(), OTHER) != first);
    assert_eq!(files(folder.path()).len(), 2);
    assert!(Cache::open(folder.path()).unwrap().clear().unwrap() > 0);
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn what_was_altered_or_is_anothers_code_is_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let whole = image(folder.path(), ONE);
    let file = files(folder.path()).remove(0);
    let good = fs::read(&file).unwrap();
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    let elsewhere = tempfile::tempdir().unwrap();
    image(elsewhere.path(), OTHER);
    let anothers = fs::read(files(elsewhere.path()).remove(0)).unwrap();
    for bad in [
        &altered,
        &good[..good.len() - 1],
        &good[..7],
        &[],
        &anothers,
    ] {
        fs::write(&file, bad).unwrap();
        let (again, said) = image_and_note(folder.path(), ONE);
        assert!(again == whole);
        assert!(said.contains("is not used"), "{said}");
        assert!(fs::read(&file).unwrap() == good);
    }
}

#[test]
fn what_others_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = image(folder.path(), ONE);
    let file = files(folder.path()).remove(0);
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let (again, said) = image_and_note(folder.path(), ONE);
    assert!(again == whole);
    assert!(said.contains("other users may write to it"), "{said}");
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let refused = format!("{:#}", Cache::open(folder.path()).unwrap_err());
        assert!(refused.contains("other users may write"), "{refused}");
    }
}

#[test]
fn code_that_cannot_be_kept_is_used_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let whole = image(folder.path(), ONE);
    let file = files(folder.path()).remove(0);
    // Nothing can be read from it, and nothing takes its place.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (again, said) = image_and_note(folder.path(), ONE);
    assert!(again == whole);
    assert!(said.contains("is not used: it is not a file"), "{said}");
    assert!(said.contains("is not kept"), "{said}");
    assert_eq!(files(folder.path()), [file]);
}

/// Compiles an empty component, by the command.
fn compile(cache: &Path) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.wat");
    fs::write(&app, ONE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-wasm"));
    command.args(["compile", "-o", "-"]).arg(app);
    command.env("XDG_CACHE_HOME", cache).output().unwrap()
}

#[test]
fn the_command_compiles_with_a_note_where_there_can_be_no_cache() {
    let output = compile(Path::new("/dev/null"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(output.stdout == wakebox_wasm::image(ONE).unwrap());
    assert!(
        err.starts_with("note: the component is compiled each time: /dev/null/"),
        "{err}"
    );
}

#[test]
fn the_command_says_where_the_cache_is_and_clears_it() {
    let base = tempfile::tempdir().unwrap();
    let output = compile(base.path());
    assert!(output.status.success() && output.stderr.is_empty());
    let cache = |what| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-wasm"));
        command.args(["cache", what]);
        let output = command.env("XDG_CACHE_HOME", base.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let folder = PathBuf::from(cache("path").trim_end());
    // There may be a line that says what the image is of.
    let images = files(&folder).into_iter().filter(|file| !is_line(file));
    assert_eq!(images.count(), 1);
    assert!(cache("clear").starts_with("removed "));
    assert_eq!(files(&folder).len(), 0);
}

#[test]
fn it_is_written_down_which_image_is_a_components_once_that_has_not_just_changed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache")).unwrap();
    let app = folder.path().join("app.wat");
    fs::write(&app, ONE).unwrap();
    let lines = || {
        let all = files(&folder.path().join("cache")).into_iter();
        all.filter(|file| is_line(file)).collect::<Vec<_>>()
    };
    let image = || {
        let app = fs::File::open(&app).unwrap();
        cache.image_of(app, |note| panic!("{note:#}")).unwrap()
    };
    let first = image();
    // It is too new, until it is not.
    while lines().is_empty() {
        assert!(image() == first);
    }
    let line = fs::read_to_string(&lines()[0]).unwrap();
    let (name, stamp) = line.trim_end().split_once(' ').unwrap();
    let kept = folder.path().join("cache").join(name);
    assert!(fs::read(&kept).unwrap().starts_with(&first));
    assert!(stamp.contains(&format!("{:x}", identity(&kept))), "{stamp}");
    // Another component in its place is another file.
    fs::write(&app, OTHER).unwrap();
    while lines().len() < 2 {
        assert!(image() != first);
    }
}
