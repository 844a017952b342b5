//! An upgrade request as the server gets it.

use super::{
    answer::Offer,
    raw_head::{HeaderLines, RequestHead, Target},
    session_info::trace_id,
};
use crate::proxy::forwarding_headers::strip_to_upgrade;

/// The request, and what closewatch keeps of it.
#[derive(Debug)]
pub(crate) struct ForwardedRequest {
    pub(crate) head: Vec<u8>,
    pub(crate) offer: Offer,
    pub(crate) path: Box<str>,
    pub(crate) trace_id: Option<Box<str>>,
}

impl ForwardedRequest {
    /// The request for a route's server. `forward` adds the headers for this route and client.
    pub(crate) fn new(
        mut request: RequestHead<'_>,
        target: &Target<'_>,
        forward: impl FnOnce(&mut HeaderLines<'_>),
    ) -> Self {
        let fields = &mut request.fields;
        let offer = Offer::of(fields);
        strip_to_upgrade(fields);
        target.overrule_host(fields);
        forward(fields);
        Self {
            head: fields.encode(&format!("GET {} HTTP/1.1", target.origin_form)),
            offer,
            path: target.path().into(),
            trace_id: trace_id(fields),
        }
    }
}
