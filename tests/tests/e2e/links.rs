//! Links and times of files: what a guest makes of them, and what it cannot.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use wakebox::{Policy, Sandbox};
use wakebox_tests::kvm_test;

use crate::files::{answers, directories, ended, sandbox};

/// What a guest with this directory as `/d`, granted with `end`, says to each command.
#[track_caller]
fn says(dir: &Path, end: &str, dialogue: &[(&str, &str)]) {
    let commands: Vec<&str> = dialogue.iter().map(|(command, _)| *command).collect();
    let ended = ended(sandbox(dir, end), &commands);
    let expected: Vec<&str> = dialogue.iter().map(|(_, line)| *line).collect();
    assert_eq!(ended.lines(), expected, "{commands:#?}");
}

#[kvm_test]
fn a_file_has_two_names_and_is_one_file() {
    for dir in directories() {
        fs::create_dir(dir.path().join("sub")).unwrap();
        symlink("a", dir.path().join("l")).unwrap();
        answers(
            dir.path(),
            &[
                ("write /d/a one", "ok"),
                ("same /d/a /d/a", "ok true 1"),
                ("link /d/a /d/sub/b", "ok"),
                ("same /d/a /d/sub/b", "ok true 2"),
                ("same /d/l /d/sub/b", "ok true 2"),
                ("open rw /d/sub/b T", "ok \"Tne\""),
                ("read /d/a", "ok \"Tne\""),
                ("write /d/c other", "ok"),
                ("same /d/a /d/c", "ok false 2"),
                ("link /d/a /d/c", "AlreadyExists"),
                ("link /d/none /d/e", "NotFound"),
                ("link /d/a /d/none/e", "NotFound"),
                ("link /d/sub /d/e", "PermissionDenied"),
                ("link /d /d/e", "PermissionDenied"),
                ("link /d/a /elsewhere", "PermissionDenied"),
                ("link /d/../x /d/e", "PermissionDenied"),
                ("link /d/.. /d/e", "PermissionDenied"),
                // The link itself, and not what it leads to.
                ("link /d/l /d/e", "ok"),
                ("lstat /d/e", "ok Symlink 1 777 true"),
                ("rm /d/a", "ok"),
                ("read /d/sub/b", "ok \"Tne\""),
                ("same /d/sub/b /d/sub/b", "ok true 1"),
            ],
        );
    }
}

#[kvm_test]
fn what_is_granted_for_reading_gets_no_name_where_it_could_be_written_to() {
    let [dir, ..] = directories();
    for name in ["seen", "own"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("seen/a"), "original").unwrap();
    let at = dir.path().display();
    let policy = Policy::new()
        .allow_dir(format!("{at}/seen:/seen:ro").parse().unwrap())
        .allow_dir(format!("{at}/own:/own:links").parse().unwrap());
    let commands = [
        "link /seen/a /own/a",
        "write /own/b text",
        "link /own/b /seen/b",
        "symlink b /seen/l",
        "touch /seen/a 1 1",
        "touch @/seen/a 1 1",
        "ltouch /seen/a now now",
        "list /own",
        // By a link it does not come there, either.
        "symlink ../seen/a /own/l",
        "open rw /own/l x",
    ];
    let ended = ended(Sandbox::builder().policy(policy), &commands);
    const NO: &str = "PermissionDenied";
    let expected = [
        NO,
        "ok",
        NO,
        NO,
        NO,
        NO,
        NO,
        "ok b (unreadable 0)",
        "ok",
        NO,
    ];
    assert_eq!(ended.lines(), expected);
    let seen = fs::metadata(dir.path().join("seen/a")).unwrap();
    assert_eq!((seen.nlink(), seen.len()), (1, 8));
    assert!(seen.mtime() > 1_500_000_000);
}

#[kvm_test]
fn symbolic_links_are_made_where_that_is_granted_and_read_everywhere() {
    for dir in directories() {
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(root.join("a"), "text").unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        let links = [
            ("symlink ../a /d/sub/l", "ok"),
            ("readlink /d/sub/l", "ok ../a"),
            ("read /d/sub/l", "ok \"text\""),
            ("lstat /d/sub/l", "ok Symlink 4 777 true"),
            ("symlink nowhere /d/dangling", "ok"),
            ("read /d/dangling", "NotFound"),
            ("open wc /d/dangling made", "ok written"),
            ("read /d/nowhere", "ok \"made\""),
            ("symlink x /d/a", "AlreadyExists"),
            ("symlink x /d/none/l", "NotFound"),
            ("symlink /etc/passwd /d/p", "PermissionDenied"),
            ("symlink x /d", "PermissionDenied"),
            ("symlink x /d/../l", "PermissionDenied"),
            // It may say so; nobody comes there by it.
            ("symlink ../secret /d/up", "ok"),
            ("read /d/up", "PermissionDenied"),
            ("stat /d/up", "PermissionDenied"),
            ("readlink /d/up", "ok ../secret"),
            ("readlink /d/absolute", "PermissionDenied"),
            ("readlink /d/a", "InvalidInput"),
            ("readlink /d/sub", "InvalidInput"),
            ("readlink /d/none", "NotFound"),
            ("readlink /d/sub/../../secret", "PermissionDenied"),
        ];
        says(&root, ":links", &links);
        says(
            &root,
            "",
            &[
                ("symlink a /d/other", "PermissionDenied"),
                ("readlink /d/sub/l", "ok ../a"),
            ],
        );
        says(
            &root,
            ":ro",
            &[
                ("symlink a /d/other", "PermissionDenied"),
                ("readlink /d/sub/l", "ok ../a"),
            ],
        );
        assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"secret");
    }
}

#[kvm_test]
fn times_are_set_of_files_directories_and_links() {
    for dir in directories() {
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("a"), "text").unwrap();
        symlink("a", root.join("l")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let before = fs::metadata(dir.path()).unwrap();
        let dialogue = [
            ("touch /d/a 1000000001 2000000002", "ok"),
            ("times /d/a", "ok 1.000000001s 2.000000002s"),
            ("touch /d/l keep 3000000003", "ok"),
            ("times /d/a", "ok 1.000000001s 3.000000003s"),
            ("ltouch /d/l 5 6", "ok"),
            ("times /d/l", "ok 5ns 6ns"),
            ("times /d/a", "ok 1.000000001s 3.000000003s"),
            ("touch @/d/a 7000000000 keep", "ok"),
            ("times /d/a", "ok 7s 3.000000003s"),
            ("touch /d/sub 8000000000 9000000000", "ok"),
            ("times /d/sub", "ok 8s 9s"),
            ("touch /d/none 1 1", "NotFound"),
            ("touch /d/.. 1 1", "PermissionDenied"),
            ("ltouch /d/.. 1 1", "PermissionDenied"),
            ("touch /d/sub/../.. 1 1", "PermissionDenied"),
            ("touch /d/up 1 1", "PermissionDenied"),
            ("touch /d/a now keep", "ok"),
            ("synced /d/s", "ok \"all \" Err(InvalidInput)"),
        ];
        says(&root, "", &dialogue);
        let a = fs::metadata(root.join("a")).unwrap();
        assert!(a.atime() > 1_500_000_000);
        assert_eq!((a.mtime(), a.mtime_nsec()), (3, 3));
        let after = fs::metadata(dir.path()).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    }
}
