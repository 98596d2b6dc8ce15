//! Going back to the version before: because the first jobs of a new one all failed, or because
//! somebody has said so (`warren plugins rollback`). Both are a [`Hold`] in the folder of the
//! versions, so that a restart finds the decision again.

use std::path::Path;

use warren_protocol::WorkerType;
use warren_runtime::Digest;

use super::{FileState, Reload};
use crate::{
    clock::now_ms,
    registry::{Version, file_name},
    trial::Judgement,
    versions::Hold,
};

impl Reload {
    /// Acts on the trials that have come to a judgement.
    pub(super) async fn judge(&mut self) {
        for seat in self.host.registry.all() {
            let version = seat.current();
            let digest = version.pool.plugin().digest;
            match version.trial.judgement() {
                Judgement::OnTrial => {}
                Judgement::Proven => self.note_proven(seat.id.worker_type(), &digest),
                Judgement::Condemned => self.go_back(seat.id.worker_type(), &version).await,
            }
        }
    }

    fn note_proven(&self, worker_type: &WorkerType, digest: &Digest) {
        let digest = digest.to_string();
        let kept = self.versions.get(worker_type, &digest);
        if kept.is_some_and(|kept| !kept.proven)
            && let Err(error) = self.versions.prove(worker_type, &digest)
        {
            tracing::warn!("worker.type" = %worker_type, %error, "that this version works could not be noted");
        }
    }

    /// Replaces a version that fails at everything by the one before it.
    async fn go_back(&mut self, worker_type: &WorkerType, version: &Version) {
        let plugin = version.pool.plugin();
        let failed = plugin.digest.to_string();
        let why = format!(
            "version {} failed at its first jobs: {}",
            plugin.description.version,
            version.trial.last_words()
        );
        let Some(before) = self.versions.before(worker_type, &failed) else {
            // It has to be tried on; what fails everything may be something else.
            version.trial.go_on();
            if self.hopeless.insert(plugin.digest) {
                tracing::error!(
                    "worker.type" = %worker_type,
                    "plugin.name" = version.file_name(),
                    "plugin.version" = plugin.description.version,
                    error = why,
                    "every job of this plugin fails, and there is no version before it to go back to"
                );
            }
            return;
        };
        if let Err(error) = self.versions.fail(worker_type, &failed, &why) {
            tracing::warn!("worker.type" = %worker_type, %error, "that this version fails could not be noted");
        }
        // What is in the folder may be something else than what failed here.
        let in_folder = self.known.get(&version.file).and_then(|known| known.digest);
        let hold = Hold {
            digest: in_folder.unwrap_or(plugin.digest).to_string(),
            serve: before.digest,
            why,
            at_ms: i64::try_from(now_ms()).unwrap_or(i64::MAX),
        };
        if let Err(error) = self.versions.set_hold(worker_type, &hold) {
            tracing::warn!(
                "worker.type" = %worker_type, %error,
                "the rollback could not be noted, so a restart would try this version again"
            );
            self.holds.insert(worker_type.clone(), hold.clone());
        }
        if !self.serve_instead(&version.file, worker_type, hold).await {
            version.trial.go_on();
        }
    }

    /// The decision against the build in the folder, if there is one.
    pub(super) fn hold(&self, worker_type: &WorkerType) -> Option<Hold> {
        let own = || self.holds.get(worker_type).cloned();
        self.versions.hold(worker_type).or_else(own)
    }

    /// A build does not load: what was decided to serve in its place does, or else what came in a
    /// file of this name before, as it would if the host had never been stopped.
    pub(super) async fn serve_kept(&mut self, file: &Path, digest: Option<Digest>) {
        let Some(digest) = digest.filter(|_| self.stage.serving(file).is_none()) else {
            return;
        };
        let Some(FileState::Rejected {
            error,
            wanted: None,
            ..
        }) = self.shelf.state(file)
        else {
            return;
        };
        let held = self.versions.types().into_iter().find_map(|worker_type| {
            let hold = self.hold(&worker_type)?;
            (hold.digest == digest.to_string()).then_some((worker_type, hold))
        });
        let kept = || {
            let (worker_type, kept) = self.versions.last_in(&file_name(file))?;
            let hold = Hold {
                digest: digest.to_string(),
                serve: kept.digest,
                why: error,
                at_ms: i64::try_from(now_ms()).unwrap_or(i64::MAX),
            };
            Some((worker_type, hold))
        };
        let Some((worker_type, hold)) = held.or_else(kept) else {
            return;
        };
        self.holds.insert(worker_type.clone(), hold.clone());
        self.serve_instead(file, &worker_type, hold).await;
    }

    /// Puts an earlier version to work under the name of a file. Returns whether it serves.
    pub(super) async fn serve_instead(
        &mut self,
        file: &Path,
        worker_type: &WorkerType,
        hold: Hold,
    ) -> bool {
        match self.bring_back(file, worker_type, &hold).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(
                    "worker.type" = %worker_type,
                    "plugin.name" = file_name(file),
                    wanted = hold.serve,
                    error,
                    "the version before cannot serve"
                );
                false
            }
        }
    }

    async fn bring_back(
        &mut self,
        file: &Path,
        worker_type: &WorkerType,
        hold: &Hold,
    ) -> Result<(), String> {
        let Some(digest) = Digest::read(&hold.serve) else {
            return Err("its digest cannot be read".to_owned());
        };
        let (versions, wanted) = (self.versions.clone(), worker_type.clone());
        let text = hold.serve.clone();
        let read = tokio::task::spawn_blocking(move || versions.plugin(&wanted, &text)).await;
        let bytes = read
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let plugin = self.workshop.plugin(bytes.into(), digest).await;
        let plugin = plugin.map_err(|rejection| rejection.error)?;
        if plugin.description.worker_type != *worker_type {
            return Err(format!(
                "it says that it is {}",
                plugin.description.worker_type
            ));
        }
        let proven = self.versions.get(worker_type, &hold.serve);
        let proven = proven.is_some_and(|kept| kept.proven);
        let yielding = self.yielding(file);
        let placed = self.stage.put(file, plugin, &yielding, proven).await;
        let placed = placed.map_err(|rejection| rejection.error)?;
        self.hopeless.remove(&digest);
        if let Err(error) = self.versions.pardon(worker_type, &hold.serve) {
            tracing::warn!("worker.type" = %worker_type, %error, "that this version serves could not be noted");
        }
        self.host.metrics.reloaded("rolled-back");
        self.host.metrics.held(worker_type, true);
        tracing::error!(
            "worker.type" = %worker_type,
            "plugin.name" = file_name(file),
            "plugin.version" = placed.version.pool.plugin().description.version,
            "plugin.digest" = digest.short(),
            error = hold.why,
            "plugin rolled back: this version serves in place of the one in the folder; a new build \
             is tried as ever, `warren plugins retry` tries this one again"
        );
        self.shelf.held(file, hold.clone(), placed.version);
        Ok(())
    }

    /// Takes a decision back: another build is there.
    pub(super) fn release(&mut self, worker_type: &WorkerType) {
        self.holds.remove(worker_type);
        if let Err(error) = self.versions.release(worker_type) {
            tracing::warn!("worker.type" = %worker_type, %error, "a rollback could not be taken back");
        }
    }

    /// Does what somebody has decided since.
    pub(super) async fn obey(&mut self) {
        for (file, state) in self.shelf.files() {
            let is_held = matches!(state, FileState::Held { .. });
            let serving = match state {
                FileState::Serving(serving) | FileState::Held { serving, .. } => Some(serving),
                FileState::Rejected { .. } => self.stage.serving(&file),
                FileState::Loading(..) => None,
            };
            let Some(serving) = serving else { continue };
            let plugin = serving.pool.plugin();
            let worker_type = plugin.description.worker_type.clone();
            let in_folder = self.known.get(&file).and_then(|known| known.digest);
            // What cannot be read has not been taken back.
            let Ok(decision) = self.versions.read_hold(&worker_type) else {
                continue;
            };
            let own = || self.holds.get(&worker_type).cloned();
            let decision = decision
                .or_else(own)
                .filter(|hold| in_folder.is_some_and(|digest| digest.to_string() == hold.digest));
            match decision {
                Some(hold) if hold.serve == plugin.digest.to_string() => {}
                Some(hold) => {
                    let serves = self.serve_instead(&file, &worker_type, hold).await;
                    if !serves {
                        self.release(&worker_type);
                    }
                }
                // The next scan finds the file new, and tries it again.
                None if is_held => {
                    self.hopeless.clear();
                    self.known.remove(&file);
                }
                None => {}
            }
        }
    }
}
