//! The operator's CLI: arguments and environment in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    pgherd::ctl::main(std::env::args_os().collect(), std::env::vars_os().filter_map(text).collect())
}
