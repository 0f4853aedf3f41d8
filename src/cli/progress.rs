//! How a pull is shown: bars on a terminal, a line for each blob elsewhere, nothing to a program.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carboy::oci::digest::Digest;
use carboy::oci::registry::{Progress, PullEvent, Quiet};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::image::size;
use super::output::Output;

const BAR: &str = "{prefix}  {bar:30}  {binary_bytes:>11} / {binary_total_bytes:11} {wide_msg}";
const SPINNER: &str = "{spinner} {wide_msg}";

/// What shows pulls to whoever reads this output.
pub(super) fn of(output: &Output) -> Arc<dyn Progress> {
    if output.is_json() {
        Arc::new(Quiet)
    } else if !ProgressDrawTarget::stderr().is_hidden() {
        Arc::new(Bars::default())
    } else {
        Arc::new(Lines::default())
    }
}

/// A bar for each blob that is fetched, on standard error.
#[derive(Debug, Default)]
struct Bars {
    all: MultiProgress,
    blobs: Mutex<HashMap<Digest, ProgressBar>>,
    unpacking: Mutex<Option<ProgressBar>>,
}

impl Progress for Bars {
    fn tell(&self, event: &PullEvent<'_>) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            PullEvent::Begun { digest, size, resumed } => {
                let bar = self.all.add(ProgressBar::new(*size));
                let style = ProgressStyle::with_template(BAR).expect("the template is ours");
                bar.set_style(style.progress_chars("=> "));
                bar.set_prefix(digest.short().to_owned());
                bar.set_position(*resumed);
                blobs.insert((*digest).clone(), bar);
            }
            PullEvent::Advanced { digest, bytes } => {
                blobs.get(digest).inspect(|bar| bar.inc(*bytes));
            }
            PullEvent::Done { digest } => {
                blobs.remove(digest).inspect(|bar| bar.finish_with_message("done"));
            }
            PullEvent::Again { reason, after } => {
                // A terminal that is gone reads no message either.
                self.all.println(again(reason, *after)).unwrap_or_default();
            }
            PullEvent::Unpacking { name } => {
                let bar = self.all.add(ProgressBar::new_spinner());
                bar.set_style(ProgressStyle::with_template(SPINNER).expect("the template is ours"));
                bar.set_message(format!("unpacking {name}"));
                bar.enable_steady_tick(Duration::from_millis(100));
                *self.unpacking.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
            }
            PullEvent::Ready { .. } => {
                let mut unpacking = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
                unpacking.take().inspect(ProgressBar::finish_and_clear);
            }
            _ => {}
        }
    }
}

/// A line for each blob that was fetched.
#[derive(Debug, Default)]
struct Lines {
    sizes: Mutex<HashMap<Digest, (u64, u64)>>,
}

impl Progress for Lines {
    fn tell(&self, event: &PullEvent<'_>) {
        let output = Output::new(false);
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            PullEvent::Begun { digest, size, resumed } => {
                sizes.insert((*digest).clone(), (*size, *resumed));
            }
            PullEvent::Done { digest } => {
                let (bytes, resumed) = sizes.remove(digest).unwrap_or_default();
                let rest = if resumed > 0 {
                    format!(", {} of it there before", size(resumed))
                } else {
                    String::new()
                };
                output.note(&format!("pulled {} ({}{rest})", digest.short(), size(bytes)));
            }
            PullEvent::Again { reason, after } => output.note(&again(reason, *after)),
            _ => {}
        }
    }
}

fn again(reason: &str, after: Duration) -> String {
    format!("note: {reason}; trying again in {} s", after.as_secs_f64())
}
