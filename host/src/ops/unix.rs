//! Unix stream sockets.

use std::io;
use std::sync::Arc;

use tokio::net::UnixStream;
use wakebox_abi::op::UnixConnect;
use wakebox_abi::status::Status;

use super::handles::Resource;
use super::path::path;
use super::stream::Stream;
use super::{End, Start, Started, TokioBackend};
use crate::policy::check::Refusal;

impl Start for UnixConnect {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let path = path(resources, self.path)?;
        if !path.starts_with('/') {
            return Err(Status::InvalidInput);
        }
        if !resources.policy.may_connect_unix(&path) {
            return Err(resources.policy.refuse(Refusal::Unix, path));
        }
        let (changeable, disk) = (resources.mounts.changeable(), resources.disk.clone());
        let guard = resources.policy.clone();
        let vacancy = resources.vacancy()?;
        Ok(Started::pending(async move {
            if !changeable.is_empty() {
                let asked = path.clone();
                let look = move || changeable.on_the_way_to(&asked);
                match disk.run(look).await {
                    Ok(Ok(None)) => {}
                    Ok(Ok(Some(_))) => return guard.refuse(Refusal::Unix, path).into(),
                    Ok(Err(error)) => return io::Error::from(error).into(),
                    Err(status) => return status.into(),
                }
            }
            let connected = UnixStream::connect(path).await;
            match connected.and_then(UnixStream::into_std) {
                Ok(stream) => {
                    let stream = Arc::new(Stream::from(stream));
                    End::Open(Resource::Stream(stream), vacancy)
                }
                Err(error) => error.into(),
            }
        }))
    }
}
