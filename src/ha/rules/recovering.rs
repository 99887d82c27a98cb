//! A start after a crash, a demotion or a restart has been tried: a leader whose server does not come back gives
//! the key away.

use crate::cluster::{Callback, DataDir, Role};
use crate::ha::context::{Context, Flow};
use crate::ha::memory::RewindState;
use crate::ha::reason::Line;

/// See the module.
pub(in crate::ha) fn recovering(cx: &mut Context<'_>) -> Option<Flow> {
    if !cx.memory.is_recovering {
        return None;
    }
    cx.memory.is_recovering = false;
    if cx.is_alive() || cx.memory.rewind.is_open() || cx.instance().data_dir != DataDir::Present {
        cx.memory.crash_recovery_tried_ms = None;
        if cx.memory.rewind == RewindState::Success {
            cx.memory.rewind = RewindState::Initial;
        }
        return None;
    }
    if !cx.has_lock() {
        return Flow::end(Line::FailedToStart);
    }
    if matches!(cx.role(), Some(Role::Primary | Role::StandbyLeader)) {
        cx.memory.role = Some(Role::Demoted);
        cx.callback(Callback::OnRoleChange, Role::Demoted);
    }
    cx.release(None);
    Flow::end(Line::RemovedKeyFailedStart)
}
