//! New settings take effect without losing a connection, or are refused whole.

use std::sync::{Arc, PoisonError};

use super::capture::Ask;
use super::{Core, Error, FLUSH, translate};
use crate::config::{Problem, Problems, Settings};
use crate::export::{EndpointError, Exporter, Ledger, Metrics, Sampler};
use crate::redact::Redactor;

/// Why a reload was refused. Everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] Problems),
    /// A part of it could not be taken.
    #[error(transparent)]
    Part(#[from] Error),
}

/// Starts the exporter that the settings ask for.
pub(super) fn exporter(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    ledger: &Arc<Ledger>,
) -> Result<Option<Arc<Exporter>>, EndpointError> {
    let Some(wanted) = translate::export(settings) else { return Ok(None) };
    Exporter::start(&wanted, metrics, Arc::clone(ledger)).map(|exporter| Some(Arc::new(exporter)))
}

impl Core {
    /// Reads the configuration again and takes it over, in the name of `who`. Gives warnings, also of what was changed but needs a restart.
    pub async fn reload(&self, who: &str) -> Result<Vec<Problem>, Refused> {
        let _one = self.reloading.lock().await;
        let loaded = self.sources.load()?;
        let new = &loaded.settings;
        let redactor = Redactor::new(&translate::redact(new)).map_err(Error::from)?;
        let identity = translate::identity(new);
        identity.check().map_err(Error::from)?;
        let old = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).settings.clone();
        let same = translate::export(&old) == translate::export(new);
        let started =
            if same { None } else { Some(exporter(new, &self.metrics, &self.exported).map_err(Error::from)?) };
        if self.asks.try_send(Ask::Identity(identity)).is_err() {
            if let Some(Some(exporter)) = started {
                exporter.stop(FLUSH).await;
            }
            return Err(Refused::Part(Error::Busy));
        }
        if let Err(refused) = self.blocks.configure(who, new) {
            if let Some(Some(exporter)) = started {
                exporter.stop(FLUSH).await;
            }
            return Err(Refused::Part(refused.into()));
        }
        // From here on nothing can be refused.
        let blocks = Arc::clone(&self.blocks);
        // Names that had no address by now are waited for beside it.
        drop(tokio::task::spawn_blocking(move || blocks.look_around()));
        self.feeds.configure(new);
        if old.traces.chains != new.traces.chains {
            let on = self.half().chains(new.traces.chains);
            // A capturing thread that is busy now would go on joining what nobody tells of.
            let asks = self.asks.clone();
            drop(tokio::task::spawn_blocking(move || asks.send(Ask::Chains(on))).await);
        }
        if (old.traces.chains, old.traces.go) != (new.traces.chains, new.traces.go) {
            let on = self.half().goroutines(new.traces.go);
            let goroutines = Arc::clone(&self.goroutines);
            drop(tokio::task::spawn_blocking(move || goroutines.set(on)).await);
        }
        self.metrics.sample(Sampler::new(new.traces.sample));
        let replaced = {
            let mut bench = self.bench.write().unwrap_or_else(PoisonError::into_inner);
            bench.redactor = redactor;
            bench.select = new.select.clone();
            bench.proxies = new.proxies.clone();
            bench.instrumented = new.traces.instrumented;
            started.and_then(|started| std::mem::replace(&mut bench.exporter, started))
        };
        self.recent.set_limit(usize::try_from(new.recent.memory).unwrap_or(usize::MAX));
        let mut warnings = loaded.warnings.clone();
        for (key, changed) in [
            ("kernel", old.kernel != new.kernel),
            ("flow", old.flow != new.flow),
            ("hosts", old.hosts != new.hosts),
            ("kubernetes", old.kubernetes != new.kubernetes),
            ("control.socket", old.socket != new.socket),
            ("prometheus.listen", old.prometheus != new.prometheus),
            ("recent.disk", old.recent.disk != new.recent.disk),
        ] {
            if changed {
                let text = format!("`{key}` changed; it takes effect at the next start");
                warnings.push(Problem::new(&loaded.effective.place(key), text));
            }
        }
        (self.log)(&new.log);
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = loaded;
        if let Some(exporter) = replaced {
            exporter.stop(FLUSH).await;
        }
        Ok(warnings)
    }
}
