//! Unix stream sockets.

use std::sync::Arc;

use tokio::net::UnixStream;
use wakebox_abi::op::UnixConnect;
use wakebox_abi::status::Status;

use super::path::path;
use super::stream::Stream;
use super::{End, Resources, Start, Started};
use crate::driver::handles::Resource;
use crate::policy::check::Refusal;

impl Start for UnixConnect {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let path = path(resources, self.path)?;
        if !path.starts_with('/') {
            return Err(Status::InvalidInput);
        }
        if !resources.policy.may_connect_unix(&path) {
            return Err(resources.policy.refuse(Refusal::Unix, path));
        }
        Ok(Started::pending(async move {
            match UnixStream::connect(path).await {
                Ok(stream) => End::Open(Resource::Stream(Arc::new(Stream::Unix(stream)))),
                Err(error) => error.into(),
            }
        }))
    }
}
