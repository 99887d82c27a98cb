//! On what a primary leads on without the DCS, kept beside its data for the agent that comes after this one.
//!
//! The members that count stand in the DCS, and an agent that is started while the DCS is away cannot read them there.
//! Its predecessor was promised by every one of them that it will not lead before a certain moment, though. Until then
//! nobody else can have been elected, so until then the new agent may ask the same members the same question. What it
//! was left is worth nothing after that moment, after the machine was started anew, and once the DCS has answered: from
//! then on there may be other members.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cluster::MemberName;
use crate::io::clock::since_boot;

use super::lease::{Sent, margin};

/// The copy's name. It is not Patroni's business: its agents wait for the DCS.
const FILE: &str = "pgherd.failsafe.json";

/// Where the system tells this start of the machine from others.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// See the module.
#[derive(Clone, Debug)]
pub struct FailsafeLead {
    /// Everybody who counts, ourselves included, and where to ask.
    pub members: BTreeMap<MemberName, String>,
    /// The moment before they were last asked; all have accepted.
    pub asked: Sent,
    /// How long their promise holds.
    pub ttl: Duration,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: MemberName,
    boot_id: String,
    asked_ms_since_boot: u64,
    ttl_ms: u64,
    members: BTreeMap<MemberName, String>,
}

impl FailsafeLead {
    /// How long nobody else can have been elected, and the server need not have been stopped; `None`: that is over.
    pub fn left(&self) -> Option<Duration> {
        let held = self.ttl.saturating_sub(margin(self.ttl));
        let awake = (self.asked.at() + held).saturating_duration_since(Instant::now());
        let left = (self.asked.since_boot() + held).saturating_sub(since_boot()).min(awake);
        (!left.is_zero()).then_some(left)
    }

    /// Keeps it in that directory.
    pub(super) fn write(&self, dir: &Path, name: &MemberName) -> io::Result<()> {
        let kept = Kept {
            name: name.clone(),
            boot_id: boot_id()?,
            asked_ms_since_boot: whole_ms(self.asked.since_boot()),
            ttl_ms: whole_ms(self.ttl),
            members: self.members.clone(),
        };
        // Not forced to the disk: it does not outlive the machine anyway.
        let new = dir.join(format!("{FILE}.new"));
        fs::write(&new, serde_json::to_string(&kept)?)?;
        fs::rename(&new, dir.join(FILE))
    }

    /// What an earlier agent of this name has left there, if it counts still.
    pub(super) fn read(dir: &Path, name: &MemberName) -> Option<Self> {
        let kept: Kept = serde_json::from_str(&fs::read_to_string(dir.join(FILE)).ok()?).ok()?;
        let is_ours = kept.name == *name && kept.boot_id == boot_id().ok()? && kept.members.contains_key(name);
        let asked = Sent::back_then(Duration::from_millis(kept.asked_ms_since_boot))?;
        let lead = Self { members: kept.members, asked, ttl: Duration::from_millis(kept.ttl_ms) };
        lead.left().filter(|_| is_ours)?;
        Some(lead)
    }

    /// Forgets it.
    pub(super) fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(ttl: u64) -> FailsafeLead {
        let members = ["a", "b"].map(|name| (name.into(), format!("http://{name}"))).into();
        FailsafeLead { members, asked: Sent::now(), ttl: Duration::from_secs(ttl) }
    }

    #[test]
    fn what_was_left_counts_for_its_owner_until_the_moment_before_anybody_else_may_lead() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = ("a".into(), "b".into());
        assert!(FailsafeLead::read(dir.path(), &a).is_none());
        let given = lead(300);
        given.write(dir.path(), &a).unwrap();
        let found = FailsafeLead::read(dir.path(), &a).unwrap();
        assert_eq!((&found.members, found.ttl), (&given.members, given.ttl));
        let early = given.asked.since_boot().saturating_sub(found.asked.since_boot());
        assert!(early < Duration::from_millis(1), "cut to whole milliseconds, never later: {early:?}");
        // Five sixths of the ttl, as the deadline of a lease.
        assert!(found.left().is_some_and(|left| left <= Duration::from_secs(250)), "{:?}", found.left());
        assert!(FailsafeLead::read(dir.path(), &b).is_none(), "a clone has its source's file");

        lead(1).write(dir.path(), &a).unwrap();
        assert!(FailsafeLead::read(dir.path(), &a).is_none(), "over");
        let stranger = FailsafeLead { members: [("b".into(), String::new())].into(), ..lead(300) };
        stranger.write(dir.path(), &a).unwrap();
        assert!(FailsafeLead::read(dir.path(), &a).is_none(), "does not count us");
        let file = dir.path().join(FILE);
        given.write(dir.path(), &a).unwrap();
        let earlier = fs::read_to_string(&file).unwrap().replace(&boot_id().unwrap(), "another");
        fs::write(&file, earlier).unwrap();
        assert!(FailsafeLead::read(dir.path(), &a).is_none(), "the machine was started anew");
        let future = fs::read_to_string(&file).unwrap().replace("another", &boot_id().unwrap());
        let at = given.asked.since_boot().as_millis().to_string();
        fs::write(&file, future.replace(&at, "99999999999999")).unwrap();
        assert!(FailsafeLead::read(dir.path(), &a).is_none(), "not yet asked");
        fs::write(&file, "{").unwrap();
        assert!(FailsafeLead::read(dir.path(), &a).is_none());

        FailsafeLead::remove(dir.path()).unwrap();
        FailsafeLead::remove(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
