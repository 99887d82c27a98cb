//! Safe transitions between two stores that must always overlap: who acknowledges commits
//! (`synchronous_standby_names`, `ANY n (S)`) and who may elect (`/sync`: leader, voters `V`, quorum `Q`).
//!
//! The invariant at every instant, with the document's leader `L` and the present primary `P`:
//! `|V ∪ {L} ∪ S ∪ {P}| <= Q + n + 1` whenever `V` is not empty, and one of `V ∪ {L}`, `S ∪ {P}` contains the other.
//! So any set of standbys that can acknowledge a commit meets any set that can elect. What makes a store weaker comes
//! last, what makes it stronger first; each transition alone keeps the invariant, so a crash between any two is safe.
//!
//! The order of the cases follows Patroni's resolver, with which a mixed cluster shares both stores.

use std::collections::BTreeSet;

/// Names, compared as they are; the caller folds case.
pub type Names = BTreeSet<String>;

/// Both stores, and what is wanted of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The document's leader.
    pub leader: String,
    /// The present primary.
    pub primary: String,
    /// Votes a candidate needs (`Q`).
    pub quorum: usize,
    /// Who votes (`V`), without the leader.
    pub voters: Names,
    /// How many standbys acknowledge a commit (`n`).
    pub numsync: usize,
    /// Which ones may (`S`).
    pub sync: Names,
    /// How many of the active ones are confirmed (`c`).
    pub confirmed: usize,
    /// Standbys that stream and may be used (`A`).
    pub active: Names,
    /// How many acknowledgements are wanted (`W`).
    pub wanted: usize,
}

/// One change of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Write `/sync`.
    Quorum {
        /// Its leader.
        leader: String,
        /// Votes needed.
        quorum: usize,
        /// Voters.
        voters: Names,
    },
    /// Write `synchronous_standby_names`.
    Sync {
        /// Acknowledgements needed.
        numsync: usize,
        /// Names.
        names: Names,
    },
    /// Nothing more can be decided before the server was looked at again.
    Restart,
}

/// A state or step that would break the invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsafe(String);

/// All transitions from this state towards the wanted one, in order. Where the next one would be unsafe the road ends
/// early, and goes on from there another time; where not even a first step is safe the way leads around.
pub fn transitions(state: State) -> Result<Vec<Transition>, Unsafe> {
    let begun = State { numsync: state.numsync.min(state.sync.len()), ..state };
    let mut resolver = Resolver { s: begun.clone(), out: Vec::new() };
    match resolver.run() {
        Err(error) if resolver.out.is_empty() => around(&begun).ok_or(error).map(|step| vec![step]),
        _ => Ok(collapse(resolver.out)),
    }
}

/// The way out of a tangle that several interrupted roads have left, and past standbys that will not confirm. While nobody votes nobody but the primary can be
/// elected, and it has everything: that is safe from anywhere. From there any list may be waited for, and the voters
/// come back when they are confirmed. `None`: that is done.
pub fn around(state: &State) -> Option<Transition> {
    if !state.voters.is_empty() || state.leader != state.primary {
        return Some(Transition::Quorum { leader: state.primary.clone(), quorum: 0, voters: Names::new() });
    }
    let numsync = state.wanted.min(state.active.len());
    let is_there = (numsync, &state.active) == (state.numsync, &state.sync);
    (!is_there).then(|| Transition::Sync { numsync, names: state.active.clone() })
}

/// Neighbours of one kind become the last of them; what follows a restart is dropped.
fn collapse(all: Vec<Transition>) -> Vec<Transition> {
    let mut kept: Vec<Transition> = Vec::new();
    for transition in all {
        let is_restart = transition == Transition::Restart;
        match (kept.last(), &transition) {
            (Some(Transition::Quorum { .. }), Transition::Quorum { .. })
            | (Some(Transition::Sync { .. }), Transition::Sync { .. }) => {
                kept.pop();
            }
            _ => {}
        }
        kept.push(transition);
        if is_restart {
            break;
        }
    }
    kept
}

/// Checks the invariant of a state.
pub fn check(state: &State) -> Result<(), Unsafe> {
    let with = |names: &Names, one: &String| {
        let mut all = names.clone();
        all.insert(one.clone());
        all
    };
    let (electing, acknowledging) = (with(&state.voters, &state.leader), with(&state.sync, &state.primary));
    let total = electing.union(&acknowledging).count();
    if !state.voters.is_empty() && total > state.quorum + state.numsync + 1 {
        return Err(Unsafe(format!(
            "Quorum and sync not guaranteed to overlap: nodes {total} >= quorum {} + sync {} + 1",
            state.quorum, state.numsync
        )));
    }
    if !(electing.is_subset(&acknowledging) || acknowledging.is_subset(&electing)) {
        return Err(Unsafe(format!("Mismatched sets: voters {:?} sync {:?}", state.voters, state.sync)));
    }
    Ok(())
}

/// Whether with these votes somebody could be elected who could not before. That is safe only when whoever is waited
/// for has everything that was ever acknowledged; what makes electing harder is safe at any time. An election takes
/// `Q + 1` of the voters and the leader, and one with the present primary in it loses nothing.
pub fn eases_election(before: &State, quorum: usize, voters: &Names) -> bool {
    if voters.len() < quorum + 1 {
        return false;
    }
    let fresh = voters.iter().filter(|name| !before.voters.contains(*name) && **name != before.leader).count();
    quorum + 1 < before.quorum + 1 + fresh
}

struct Resolver {
    s: State,
    out: Vec<Transition>,
}

fn minus(a: &Names, b: &Names) -> Names {
    a.difference(b).cloned().collect()
}

fn plus(a: &Names, b: &Names) -> Names {
    a.union(b).cloned().collect()
}

fn common(a: &Names, b: &Names) -> Names {
    a.intersection(b).cloned().collect()
}

impl Resolver {
    fn sync(&mut self, numsync: usize, names: Names) -> Result<(), Unsafe> {
        if numsync > names.len() {
            return Err(Unsafe(format!("Sync {numsync} > N of {names:?}")));
        }
        self.s.numsync = numsync;
        self.s.sync = names.clone();
        check(&self.s)?;
        self.out.push(Transition::Sync { numsync, names });
        Ok(())
    }

    fn quorum(&mut self, quorum: usize, voters: Names, adjust: bool) -> Result<(), Unsafe> {
        let (mut quorum, mut voters) = (quorum, voters);
        if quorum > 0 && quorum >= voters.len() {
            return Err(Unsafe(format!("Quorum {quorum} >= N of {voters:?}")));
        }
        if self.s.confirmed == 0 && self.s.voters.is_empty() {
            quorum = 0;
            voters = Names::new();
        } else if adjust {
            // More votes while acknowledgements may come from fewer than configured; never so many that nobody wins.
            quorum += self.s.numsync.saturating_sub(self.s.confirmed);
            quorum = quorum.min(voters.len().saturating_sub(1));
        }
        self.write(self.s.leader.clone(), quorum, voters)
    }

    fn write(&mut self, leader: String, quorum: usize, voters: Names) -> Result<(), Unsafe> {
        if (&leader, quorum, &voters) == (&self.s.leader, self.s.quorum, &self.s.voters) {
            if voters.is_empty() {
                self.out.push(Transition::Restart);
            }
            return Ok(());
        }
        self.s.leader = leader.clone();
        self.s.quorum = quorum;
        self.s.voters = voters.clone();
        check(&self.s)?;
        self.out.push(Transition::Quorum { leader, quorum, voters });
        Ok(())
    }

    fn run(&mut self) -> Result<(), Unsafe> {
        let is_failover = self.s.leader != self.s.primary;
        let begun = if is_failover { self.failover() } else { check(&self.s).map(|()| false) };
        match begun {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // An inconsistent start is mended by trusting what the server really waits for.
            Err(_) => {
                self.s.leader = self.s.primary.clone();
                let quorum = self.s.sync.len().saturating_sub(self.s.numsync);
                self.quorum(quorum, self.s.sync.clone(), true)?;
            }
        }
        if self.s.confirmed == 0 && !common(&self.s.sync, &self.s.active).is_empty() {
            let usable = common(&self.s.sync, &self.s.active).len();
            self.s.confirmed = usable.min(self.s.voters.len().saturating_sub(self.s.quorum));
        }
        self.align()?;
        self.gone()?;
        self.fresh()?;
        self.factor()
    }

    /// A new primary takes the document over. `true`: replicas get a cycle to reconnect.
    fn failover(&mut self) -> Result<bool, Unsafe> {
        let mut voters = self.s.voters.clone();
        voters.remove(&self.s.primary);
        voters.insert(self.s.leader.clone());
        if self.s.sync.is_empty() {
            let numsync = voters.len().saturating_sub(self.s.quorum);
            self.sync(numsync, voters.clone())?;
        }
        let quorum = self.s.quorum;
        if quorum > 0 && quorum >= voters.len() {
            return Err(Unsafe(format!("Quorum {quorum} >= N of {voters:?}")));
        }
        self.write(self.s.primary.clone(), quorum, voters)?;
        Ok(common(&self.s.sync, &self.s.active).is_empty())
    }

    /// Makes both stores hold the same names: first what is waited for but does not vote, then what votes but is not
    /// waited for.
    fn align(&mut self) -> Result<(), Unsafe> {
        if self.s.sync.is_superset(&self.s.voters) && self.s.sync != self.s.voters {
            let (sync, voters, active) = (self.s.sync.clone(), self.s.voters.clone(), self.s.active.clone());
            self.shrink_sync(&sync, &voters, &active)?;
        }
        if self.s.sync.is_subset(&self.s.voters) && self.s.sync != self.s.voters {
            self.shrink_voters()?;
        }
        self.settle_numbers()
    }

    fn shrink_voters(&mut self) -> Result<(), Unsafe> {
        let (sync, voters, active) = (self.s.sync.clone(), self.s.voters.clone(), self.s.active.clone());
        let drop = minus(&voters, &plus(&sync, &active));
        if !drop.is_empty() {
            let quorum = voters.len().saturating_sub(drop.len() + self.s.numsync);
            self.quorum(quorum, minus(&voters, &drop), sync.is_subset(&active))?;
        }
        let add = minus(&common(&self.s.voters, &active), &self.s.sync);
        if !add.is_empty() {
            self.sync(self.s.numsync, plus(&self.s.sync, &add))?;
        }
        Ok(())
    }

    fn shrink_sync(&mut self, sync: &Names, voters: &Names, active: &Names) -> Result<(), Unsafe> {
        let drop = minus(sync, active);
        let left = minus(sync, &drop);
        if !drop.is_empty() && !left.is_empty() && (voters.is_empty() || !common(&left, voters).is_empty()) {
            // Not in one step where voters that are gone, too, still count on those names; they go one by one below.
            let next = State { numsync: self.s.numsync.min(left.len()), sync: left.clone(), ..self.s.clone() };
            if check(&next).is_ok() {
                self.sync(next.numsync, left)?;
            }
        }
        let add = common(&minus(&self.s.sync, &self.s.voters), active);
        if !add.is_empty() {
            let all = plus(&self.s.voters, &add);
            let quorum = all.len().saturating_sub(self.s.numsync);
            self.quorum(quorum, all, true)?;
        }
        let drop = minus(&self.s.sync, &self.s.voters);
        if !drop.is_empty() {
            let left = minus(&self.s.sync, &drop);
            self.sync(self.s.numsync.min(left.len()), left)?;
        }
        Ok(())
    }

    fn settle_numbers(&mut self) -> Result<(), Unsafe> {
        let names = self.s.sync.clone();
        let surplus = (self.s.quorum + self.s.numsync.min(self.s.confirmed)).cast_signed() - names.len().cast_signed();
        if surplus > 0 {
            if self.s.numsync > self.s.wanted {
                let numsync = self.s.wanted.max(self.s.voters.len().saturating_sub(self.s.quorum));
                return self.sync(numsync, names);
            }
            let quorum = names.len().saturating_sub(self.s.numsync);
            return self.quorum(quorum, self.s.voters.clone(), true);
        }
        let loose = self.s.numsync == self.s.wanted
            && self.s.quorum + self.s.numsync > names.len()
            && self.s.numsync > self.s.confirmed;
        if loose {
            let quorum = names.len().saturating_sub(self.s.numsync);
            return self.quorum(quorum, self.s.voters.clone(), true);
        }
        Ok(())
    }

    /// Standbys that went away.
    fn gone(&mut self) -> Result<(), Unsafe> {
        let gone = minus(&self.s.sync, &self.s.active);
        if gone.is_empty() {
            return Ok(());
        }
        if gone == self.s.sync {
            self.quorum(0, Names::new(), false)?;
            return self.sync(0, Names::new());
        }
        if self.s.quorum > 0 {
            let removable: Names = gone.iter().rev().take(self.s.quorum).cloned().collect();
            let left = minus(&self.s.sync, &removable);
            self.sync(self.s.wanted.max(self.s.numsync).min(left.len()), left)?;
            let still = common(&gone, &self.s.sync);
            let voters = minus(&self.s.voters, &removable);
            let quorum = voters.len().saturating_sub(self.s.numsync);
            self.quorum(quorum, voters, still.is_empty())?;
        }
        let still = common(&gone, &self.s.sync);
        if still.is_empty() {
            return Ok(());
        }
        let numsync = self.s.numsync.saturating_sub(still.len());
        let left = minus(&self.s.sync, &still);
        let spare = numsync.saturating_sub(self.s.wanted.min(left.len()));
        let voters = minus(&self.s.voters, &still);
        let quorum = if spare == 0 { 0 } else { spare.min(voters.len().saturating_sub(1)) };
        self.quorum(quorum, voters, false)?;
        self.sync(numsync, left)
    }

    /// Standbys that came.
    fn fresh(&mut self) -> Result<(), Unsafe> {
        let mut fresh = minus(&self.s.active, &self.s.sync);
        if fresh.is_empty() {
            return Ok(());
        }
        let wanted = self.s.wanted.min(plus(&self.s.sync, &fresh).len());
        if wanted > self.s.numsync {
            let increase = wanted - self.s.numsync;
            let first: Names =
                if self.s.sync.is_empty() { fresh.clone() } else { fresh.iter().take(increase).cloned().collect() };
            let increase = if self.s.sync.is_empty() { increase } else { first.len() };
            self.sync(self.s.numsync + increase, plus(&self.s.sync, &first))?;
            let voters = plus(&self.s.voters, &first);
            // Fewer may have come than acknowledgements are missing: the votes make up for what is waited for now.
            let quorum = voters.len().saturating_sub(self.s.numsync);
            self.quorum(quorum, voters, true)?;
            fresh = minus(&fresh, &self.s.sync);
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let voters = plus(&self.s.voters, &fresh);
        let quorum = voters.len().saturating_sub(wanted);
        self.quorum(quorum, voters, wanted > self.s.confirmed)?;
        self.sync(wanted, plus(&self.s.sync, &fresh))
    }

    /// The number of acknowledgements wanted has changed.
    fn factor(&mut self) -> Result<(), Unsafe> {
        let target = self.s.wanted.min(self.s.sync.len());
        let names = self.s.sync.clone();
        if target > self.s.numsync {
            self.sync(target, names)?;
            let quorum = self.s.voters.len().saturating_sub(self.s.numsync);
            return self.quorum(quorum, self.s.voters.clone(), true);
        }
        if target < self.s.numsync {
            // Electing gets harder before acknowledging gets easier.
            let quorum = self.s.quorum.max(self.s.voters.len().saturating_sub(target));
            self.quorum(quorum, self.s.voters.clone(), false)?;
            return self.sync(target, names);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &[&str]) -> Names {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn steady(voters: &[&str], quorum: usize, numsync: usize) -> State {
        State {
            leader: "p".into(),
            primary: "p".into(),
            quorum,
            voters: names(voters),
            numsync,
            sync: names(voters),
            confirmed: voters.len(),
            active: names(voters),
            wanted: 1,
        }
    }

    #[test]
    fn a_settled_state_stays() {
        assert_eq!(transitions(steady(&["a", "b"], 1, 1)).unwrap(), Vec::new());
    }

    #[test]
    fn the_first_standbys_are_waited_for_before_they_may_elect() {
        let start = State { confirmed: 0, active: names(&["a", "b"]), ..steady(&[], 0, 0) };
        let steps = transitions(start).unwrap();
        assert_eq!(steps[0], Transition::Sync { numsync: 1, names: names(&["a", "b"]) });
        assert_eq!(steps.get(1), Some(&Transition::Restart), "voters follow once they are confirmed");
    }

    #[test]
    fn a_standby_that_left_stops_electing_before_it_stops_counting() {
        let start = State { active: names(&["a"]), confirmed: 1, ..steady(&["a", "b"], 1, 1) };
        let steps = transitions(start).unwrap();
        assert_eq!(
            steps,
            vec![
                Transition::Sync { numsync: 1, names: names(&["a"]) },
                Transition::Quorum { leader: "p".into(), quorum: 0, voters: names(&["a"]) }
            ]
        );
    }

    /// The state after some of the transitions.
    fn apply(state: &State, steps: &[Transition]) -> State {
        let mut now = state.clone();
        now.numsync = now.numsync.min(now.sync.len());
        for step in steps {
            match step {
                Transition::Quorum { leader, quorum, voters } => {
                    now.leader = leader.clone();
                    now.quorum = *quorum;
                    now.voters = voters.clone();
                }
                Transition::Sync { numsync, names } => {
                    now.numsync = *numsync;
                    now.sync = names.clone();
                }
                Transition::Restart => {}
            }
        }
        now
    }

    fn subset() -> impl Strategy<Value = Names> {
        proptest::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5).prop_map(|list| names(&list))
    }

    /// A consistent state, reached by resolving from nothing towards some set, then disturbed by another active set.
    fn reachable() -> impl Strategy<Value = State> {
        (subset(), subset(), 1..4_usize, 1..4_usize, 0..3_usize).prop_map(|(first, second, w1, w2, stop)| {
            let confirmed = first.len();
            let mut state = State { active: first, wanted: w1, confirmed: 0, ..steady(&[], 0, 0) };
            for _ in 0..4 {
                let steps = transitions(state.clone()).unwrap_or_default();
                state = apply(&state, &steps);
                state.confirmed = confirmed;
            }
            // The road towards the next set may have been left anywhere.
            state.active = second;
            state.wanted = w2;
            state.confirmed = common(&state.active, &state.sync).len();
            let steps = transitions(state.clone()).unwrap_or_default();
            let stop = stop.min(steps.len());
            let mut state = apply(&state, &steps[..stop]);
            state.confirmed = common(&state.active, &state.sync).len();
            state
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_prefix_of_the_transitions_is_safe(start in reachable(), active in subset(), wanted in 1..4_usize) {
            prop_assume!(check(&start).is_ok());
            let state = State { confirmed: common(&active, &start.sync).len(), active, wanted, ..start };
            let steps = transitions(state.clone()).unwrap();
            for end in 0..=steps.len() {
                prop_assert!(check(&apply(&state, &steps[..end])).is_ok(), "after {:?} of {:?}", &steps[..end], steps);
            }
        }

        #[test]
        fn a_new_primary_takes_over_safely(start in reachable(), pick in 0..5_usize) {
            prop_assume!(check(&start).is_ok() && !start.voters.is_empty());
            let primary = start.voters.iter().nth(pick % start.voters.len()).unwrap().clone();
            // What a promotion leaves: it waits for every former member but itself.
            let mut members = start.voters.clone();
            members.insert(start.leader.clone());
            let number = members.len() - start.quorum - 1;
            members.remove(&primary);
            let active = members.clone();
            let confirmed = active.len();
            let state = State { primary, numsync: number.min(members.len()), sync: members, active, confirmed, ..start };
            let steps = transitions(state.clone()).unwrap();
            for end in 1..=steps.len() {
                prop_assert!(check(&apply(&state, &steps[..end])).is_ok());
            }
        }

        #[test]
        fn it_arrives(active in subset(), wanted in 1..4_usize, start in reachable()) {
            prop_assume!(check(&start).is_ok());
            let mut state = State { active: active.clone(), wanted, ..start };
            for _ in 0..8 {
                state.confirmed = common(&state.active, &state.sync).len();
                let steps = transitions(state.clone()).unwrap();
                for end in 0..=steps.len() {
                    prop_assert!(check(&apply(&state, &steps[..end])).is_ok(), "after {:?}", &steps[..end]);
                }
                state = apply(&state, &steps);
            }
            let numsync = wanted.min(active.len());
            prop_assert_eq!(&state.sync, &active);
            prop_assert_eq!(&state.voters, &active);
            prop_assert_eq!(state.numsync, numsync);
            prop_assert_eq!(state.quorum, active.len() - numsync);
        }
    }
}
