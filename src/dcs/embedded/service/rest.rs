//! Everything no service of ours takes: users and roles, locks and elections, and what is yet to be invented.
//!
//! These answers need no request, so they need no generated code either (which, for users and roles, has types that
//! the client library does not export).

use axum::http::{HeaderMap, Response, Uri};
use tonic::Status;
use tonic::body::Body;

use super::not_covered;

/// The call a client makes when it was given a user name.
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// Refuses by name. What does not speak gRPC gets the same as plain HTTP headers, which is all it can see.
pub(super) async fn answer(uri: Uri, _headers: HeaderMap) -> Response<Body> {
    let status = if uri.path() == AUTHENTICATE {
        Status::failed_precondition("etcdserver: authentication is not enabled")
    } else {
        not_covered(uri.path().trim_start_matches('/'))
    };
    status.into_http()
}
