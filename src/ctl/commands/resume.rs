//! `resume`: let the members manage PostgreSQL again.

use crate::ctl::{Context, CtlError, Outcome};

use super::pause::{PauseArgs, set_paused};

/// Runs it; the arguments are those of `pause`.
pub async fn run(context: &Context<'_>, args: &PauseArgs) -> Result<Outcome, CtlError> {
    set_paused(context, args, false).await
}
