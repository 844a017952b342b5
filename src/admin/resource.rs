//! What stands at which path.

use hyper::Method;

use super::Scope;

/// A thing that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Page,
    Metrics,
    Healthy,
    Ready,
    Closes,
    ClosesStream,
    Codes,
    /// A path that a later version will answer.
    NotYet,
    Command(Command),
}

/// A thing that can be asked to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Reload,
    Drain,
    Close,
}

impl Resource {
    /// What a listener of this scope has at `path`.
    pub(super) fn at(path: &str, scope: Scope) -> Option<Self> {
        let resource = match path {
            "/metrics" => return Some(Self::Metrics),
            "/-/healthy" => return Some(Self::Healthy),
            "/-/ready" => return Some(Self::Ready),
            "/" => Self::Page,
            "/api/v1/closes" => Self::Closes,
            "/api/v1/closes/stream" => Self::ClosesStream,
            "/api/v1/codes" => Self::Codes,
            "/api/v1/sessions" | "/api/v1/findings" => Self::NotYet,
            "/-/reload" => Self::Command(Command::Reload),
            "/-/drain" => Self::Command(Command::Drain),
            "/-/close" => Self::Command(Command::Close),
            _ => return None,
        };
        (scope == Scope::Full).then_some(resource)
    }

    /// The methods it has, as an Allow header lists them.
    pub(super) const fn allowed(self) -> &'static str {
        match self {
            Self::Command(_) => "POST",
            _ => "GET, HEAD",
        }
    }

    pub(super) fn allows(self, method: &Method) -> bool {
        match self {
            Self::Command(_) => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }
}
