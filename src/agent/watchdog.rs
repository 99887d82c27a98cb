//! A watchdog device: hardware that resets the machine when nobody tells it in time that all is well.
//!
//! It is armed before this node becomes the leader, fed after every confirmation that it leads, and disarmed when the
//! server is no primary any more and no client is connected to it. Its timeout is shorter than the leader key's life,
//! so that a machine whose agent stands still is gone before another member is promoted. Unlike the guard it needs
//! nothing of this machine to work; the guard needs no device. They run beside each other.
//!
//! Where a rule is not obvious it is Patroni's, so that a configuration made for it does here what it did there.

mod device;
mod ioctl;

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::config::{Dynamic, WatchdogConfig, WatchdogMode};
use crate::ha;

use device::Device;

/// The agent's watchdog: the configuration, read anew each time, and the device while it is open.
pub struct Watchdog {
    configured: Box<dyn Fn() -> WatchdogConfig + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the device was last set up by.
    plan: Option<Plan>,
    device: Option<Device>,
    /// Activation failed; there is no device until the configuration changes.
    is_given_up: bool,
}

/// The configuration as far as it concerns the device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    mode: WatchdogMode,
    path: String,
    is_test: bool,
    ttl: i64,
    loop_wait: i64,
    /// The wanted timeout in seconds: shorter than the ttl by the safety margin.
    timeout: i64,
}

impl Plan {
    fn new(config: &WatchdogConfig, settings: &Dynamic) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let (ttl, loop_wait) = (seconds(settings.ttl), seconds(settings.loop_wait));
        Self {
            mode: config.mode,
            path: config.device.clone(),
            is_test: config.driver == "testing",
            ttl,
            loop_wait,
            timeout: if config.safety_margin == -1 { ttl / 2 } else { ttl.saturating_sub(config.safety_margin) },
        }
    }

    /// What is left of the timeout when the loop is as slow as it may be.
    fn slack(&self) -> i64 {
        self.timeout - self.loop_wait
    }

    fn is_required(&self) -> bool {
        self.mode == WatchdogMode::Required
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Watchdog {
    /// A watchdog by the configuration that is asked for each time.
    pub fn new(configured: impl Fn() -> WatchdogConfig + Send + Sync + 'static) -> Self {
        Self { configured: Box::new(configured), state: Mutex::default() }
    }

    /// No device at all.
    pub fn none() -> Self {
        Self::new(|| WatchdogConfig {
            mode: WatchdogMode::Off,
            device: String::new(),
            safety_margin: 0,
            driver: String::new(),
            guard: false,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, settings: &Dynamic) -> Plan {
        Plan::new(&(self.configured)(), settings)
    }

    /// A device is open and counts down.
    pub fn runs(&self) -> bool {
        self.state().device.is_some()
    }

    /// What the rules may know of it.
    pub fn standing(&self, settings: &Dynamic) -> ha::Watchdog {
        let plan = self.plan(settings);
        let mut state = self.state();
        if plan.mode == WatchdogMode::Off {
            // Turning it off does not wait for anything.
            state.disarm();
            return ha::Watchdog::Settled;
        }
        if plan.is_required() && (plan.slack() < 0 || !device::is_usable(&plan.path)) {
            return ha::Watchdog::Unusable;
        }
        let is_settled =
            state.device.is_some() || (state.is_given_up && !plan.is_required() && state.plan.as_ref() == Some(&plan));
        if is_settled { ha::Watchdog::Settled } else { ha::Watchdog::Idle }
    }

    /// Arms it. `false`: it is required and cannot be had, so this node must not lead.
    pub fn activate(&self, settings: &Dynamic) -> bool {
        let plan = self.plan(settings);
        let mut state = self.state();
        if state.device.is_some() || plan.mode == WatchdogMode::Off {
            return true;
        }
        if state.plan.as_ref() != Some(&plan) {
            state.is_given_up = false;
        }
        state.plan = Some(plan.clone());
        state.activate(&plan)
    }

    /// This node was confirmed as the leader. Changes of the configuration are applied on this occasion.
    pub fn keep_alive(&self, settings: &Dynamic) {
        let mut state = self.state();
        if state.device.is_none() {
            return;
        }
        let plan = self.plan(settings);
        if plan.mode == WatchdogMode::Off {
            return state.disarm();
        }
        if let Err(error) = state.keep_alive(plan) {
            error!(%error, "Error while sending keepalive");
        }
    }

    /// Disarms it: there is no primary here, or maintenance mode holds.
    pub fn disarm(&self) {
        self.state().disarm();
    }
}

impl State {
    fn activate(&mut self, plan: &Plan) -> bool {
        let mut actual = None;
        if plan.slack() < 0 {
            if !std::mem::replace(&mut self.is_given_up, true) {
                let Plan { ttl, loop_wait, .. } = plan;
                warn!("Watchdog not supported because leader TTL {ttl} is less than 2x loop_wait {loop_wait}");
            }
        } else if !self.is_given_up {
            match self.open(plan) {
                Ok(timeout) => actual = timeout,
                Err(error) => {
                    let name = device::describe(&plan.path);
                    if plan.is_required() {
                        warn!("Could not activate {name}: {error}");
                    } else {
                        debug!("Could not activate {name}: {error}");
                    }
                    self.device = None;
                    // A test may be slower than we to read its FIFO.
                    self.is_given_up = error.raw_os_error() != Some(nix::errno::Errno::ENXIO as i32);
                }
            }
        }
        let Some(device) = &self.device else {
            if plan.is_required() {
                error!("Configuration requires watchdog, but watchdog could not be configured.");
            }
            return !plan.is_required();
        };
        let actual = actual.unwrap_or(i64::MAX);
        if !device.can_be_disarmed() {
            warn!(
                "Watchdog implementation can't be disabled. Watchdog will trigger after Patroni loses leader key \
                 (the machine is reset then)."
            );
        }
        if actual > plan.timeout {
            let wanted = plan.timeout;
            if plan.is_required() {
                error!(
                    "Configuration requires watchdog, but a safe watchdog timeout {wanted} could not be configured. \
                     Watchdog timeout is {actual}."
                );
                self.disarm();
                self.is_given_up = true;
                return false;
            }
            warn!("Watchdog timeout {actual} seconds does not ensure safe termination within {wanted} seconds");
        }
        if let Some(device) = &self.device {
            let (name, slack) = (device.describe(), plan.slack());
            info!("{name} activated with {actual} second timeout, timing slack {slack} seconds");
        }
        true
    }

    /// Opens the device and sets its timeout; the one it took. `None`: it was closed again, being of no use.
    fn open(&mut self, plan: &Plan) -> io::Result<Option<i64>> {
        let mut device = Device::open(&plan.path, plan.is_test)?;
        let set = if device.can_set_timeout() { device.set_timeout(plan.timeout) } else { Ok(()) };
        let actual = match set.and_then(|()| device.timeout()) {
            Ok(actual) => actual,
            Err(error) => {
                // It must not go on counting by a timeout that nobody knows.
                self.device = Some(device);
                self.disarm();
                return Err(error);
            }
        };
        let can_be_disarmed = device.can_be_disarmed();
        self.device = Some(device);
        if actual < plan.loop_wait {
            let loop_wait = plan.loop_wait;
            error!("loop_wait of {loop_wait} seconds is too long for watchdog {actual} second timeout");
            if can_be_disarmed {
                info!("Disabling watchdog due to unsafe timeout.");
                self.disarm();
                self.is_given_up = true;
                return Ok(None);
            }
        }
        Ok(Some(actual))
    }

    fn keep_alive(&mut self, plan: Plan) -> io::Result<()> {
        let Some(device) = &mut self.device else { return Ok(()) };
        device.keep_alive()?;
        let before = self.plan.replace(plan.clone());
        let Some(before) = before.filter(|before| *before != plan) else { return Ok(()) };
        if (&before.path, before.is_test) != (&plan.path, plan.is_test) {
            self.disarm();
            self.is_given_up = false;
            self.activate(&plan);
        } else if before.timeout != plan.timeout {
            device.set_timeout(plan.timeout)?;
            let (name, timeout, slack) = (device.describe(), plan.timeout, plan.slack());
            info!("{name} updated with {timeout} second timeout, timing slack {slack} seconds");
        }
        Ok(())
    }

    fn disarm(&mut self) {
        let Some(mut device) = self.device.take() else { return };
        if !device.can_be_disarmed() {
            // The administrator gets all the time there is.
            let _ = device.keep_alive();
            let timeout = device.timeout().unwrap_or_default();
            warn!(
                "Watchdog implementation can't be disabled. System will reboot after {timeout} seconds when watchdog \
                 times out."
            );
        }
        if let Err(error) = device.disarm() {
            error!(%error, "Error while disabling watchdog");
        }
    }
}

#[cfg(test)]
mod tests;
