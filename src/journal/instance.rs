//! The name of this closewatch among others.

use std::{env, sync::LazyLock};

/// `CLOSEWATCH_INSTANCE`, else `POD_NAME`, else the name of the host.
pub fn instance() -> &'static str {
    static INSTANCE: LazyLock<String> = LazyLock::new(|| {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        variable("CLOSEWATCH_INSTANCE").or_else(|| variable("POD_NAME")).unwrap_or_else(host_name)
    });
    &INSTANCE
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
