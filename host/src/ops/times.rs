//! Setting the times of files.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens, utimensat,
};
use wakebox_abi::file::FileTime;
use wakebox_abi::op::{Follow, SetFileTimes, SetPathTimes};
use wakebox_abi::status::Status;

use super::path::{failed, path};
use super::{End, Start, Started, TokioBackend};

const SECOND: i64 = 1_000_000_000;

fn timespec(time: FileTime) -> Timespec {
    match time {
        FileTime::Keep => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        FileTime::Now => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        FileTime::At(ns) => Timespec {
            tv_sec: ns.div_euclid(SECOND),
            tv_nsec: ns.rem_euclid(SECOND),
        },
    }
}

fn times(accessed: FileTime, modified: FileTime) -> Timestamps {
    Timestamps {
        last_access: timespec(accessed),
        last_modification: timespec(modified),
    }
}

impl Start for SetPathTimes {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let resolved = resources.mounts.resolve(path(resources, self.path)?)?;
        let resolved = resolved.for_change()?;
        let flags = match self.follow {
            Follow::Yes => OFlags::PATH,
            Follow::No => OFlags::PATH | OFlags::NOFOLLOW,
        };
        let times = times(self.accessed, self.modified);
        Ok(resources.disk.start(None, move || {
            // Not by a name in a directory: `..` is one, too.
            let found = resolved.open(flags)?;
            utimensat(found.as_fd(), "", &times, AtFlags::EMPTY_PATH).map_err(failed)?;
            Ok(End::OK)
        }))
    }
}

impl Start for SetFileTimes {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let file = resources.handles.file(self.file)?.clone();
        if !file.may_change {
            return Err(Status::PermissionDenied);
        }
        let times = times(self.accessed, self.modified);
        Ok(resources.disk.start(Some(self.file), move || {
            futimens(&file.file, &times).map_err(failed)?;
            Ok(End::OK)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_has_nanoseconds_that_count_forward() {
        let spec = |ns| {
            let Timespec { tv_sec, tv_nsec } = timespec(FileTime::At(ns));
            (tv_sec, tv_nsec)
        };
        assert_eq!(spec(0), (0, 0));
        assert_eq!(spec(-1), (-1, 999_999_999));
        assert_eq!(spec(1_500_000_000), (1, 500_000_000));
    }
}
