//! `resume`: let the members manage PostgreSQL again.

use crate::ctl::{Context, CtlError, Exit};

use super::pause::{PauseArgs, set_paused};

/// Runs it; the arguments are those of `pause`.
pub async fn run(context: &Context<'_>, args: &PauseArgs) -> Result<Exit, CtlError> {
    set_paused(context, args, false).await
}
