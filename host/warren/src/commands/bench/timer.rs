//! A timer that is finer than tokio's, which counts in milliseconds: at a thousand jobs a second that is
//! as long as the time between two, and all of it would be taken for latency.

use std::io;

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        os::fd::OwnedFd,
        time::{Duration, Instant},
    };

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::io;

    /// A timer of the kernel, set anew only when it has to end earlier.
    pub(in super::super) struct Timer {
        file: AsyncFd<OwnedFd>,
        set: Option<Instant>,
    }

    impl Timer {
        #[allow(
            deprecated,
            reason = "its successor is unsafe to call, for the sake of types that do not own what they \
                      register; this one does and never replaces it"
        )]
        pub(in super::super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Self {
                file: AsyncFd::new(file)?,
                set: None,
            })
        }

        /// Returns at this moment, or earlier.
        ///
        /// # Cancel safety
        /// The next call goes on with what was set.
        pub(in super::super) async fn until(&mut self, moment: Instant) -> io::Result<()> {
            if self.set.is_none_or(|set| set > moment) {
                // Zero would switch it off.
                let left = moment.saturating_duration_since(Instant::now());
                let left = left.max(Duration::from_nanos(1));
                let zero = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                let once = Itimerspec {
                    it_interval: zero,
                    it_value: Timespec::try_from(left).unwrap_or(zero),
                };
                timerfd_settime(self.file.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                self.set = Some(moment);
            }
            loop {
                let mut ready = self.file.readable().await?;
                let mut n_ends = [0; size_of::<u64>()];
                match ready.try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut n_ends)?)) {
                    Ok(ended) => {
                        self.set = None;
                        return ended.map(drop);
                    }
                    // It was set anew in between.
                    Err(_would_block) => {}
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::time::Instant;

    use super::io;

    /// tokio's own.
    pub(in super::super) struct Timer;

    impl Timer {
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(in super::super) async fn until(&mut self, moment: Instant) -> io::Result<()> {
            tokio::time::sleep_until(moment.into()).await;
            Ok(())
        }
    }
}
