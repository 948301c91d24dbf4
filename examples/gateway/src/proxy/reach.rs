//! The way to a box: it is brought up, dialled, and looked for once more when it does not answer.

use crate::exit::{ExitCode, Refusal};
use crate::hold::Hold;
use crate::plain::plain;
use crate::upstream::{DialError, Openings, Upstream};
use crate::user::UserSide;
use crate::visit::Phase;
use boxpool::{BoxName, Endpoint, Epoch, Progress, UserId};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// On whose behalf boxes are brought up and dialled.
pub trait Bringer: Sync {
    /// The hold on the box `name` of `owner` that there is, or a new one; the pool refuses boxes that it may not use.
    /// `distrust`: the box of that epoch did not answer.
    ///
    /// # Errors
    /// When it may have none.
    fn hold_of(&self, owner: &UserId, name: &BoxName, distrust: Option<Epoch>) -> Result<Arc<Hold>, Refusal>;

    /// A connection of its own to a box that is up.
    fn dial(&self, endpoint: &Endpoint, openings: Openings)
    -> impl Future<Output = Result<Upstream, DialError>> + Send;
}

/// A connection to the box of `hold`; the returned hold is the one to keep.
///
/// A box whose SSH server does not answer is reported to the pool and asked for once more: its machine may have died,
/// and the pool then starts it again.
///
/// # Errors
/// Why the box cannot be had or reached.
pub async fn reach(
    from: &impl Bringer,
    hold: Arc<Hold>,
    openings: Openings,
    shown: Option<&UserSide>,
) -> Result<(Upstream, Arc<Hold>), Refusal> {
    reach_timed(from, hold, openings, shown).await.map(|(upstream, hold, _)| (upstream, hold))
}

/// How long it took until the box could be dialled, and until its SSH server had let the gateway in.
pub type Took = [Duration; 2];

/// As [`reach`], and how long it took.
///
/// # Errors
/// As [`reach`].
pub async fn reach_timed(
    from: &impl Bringer,
    hold: Arc<Hold>,
    openings: Openings,
    shown: Option<&UserSide>,
) -> Result<(Upstream, Arc<Hold>, Took), Refusal> {
    let error = match dial(from, &hold, &openings, shown).await? {
        Ok((upstream, took)) => return Ok((upstream, hold, took)),
        Err(error) => error,
    };
    tracing::warn!(box_name = %hold.name(), %error, "box not reached");
    if !matches!(error, DialError::Unreachable(_)) {
        return Err(Refusal::new(ExitCode::Failed, error.to_string()));
    }
    let (owner, name) = (hold.owner().clone(), hold.name().clone());
    let distrust = hold.mark_unreachable();
    drop(hold);
    let hold = from.hold_of(&owner, &name, distrust)?;
    match dial(from, &hold, &openings, shown).await? {
        Ok((upstream, took)) => Ok((upstream, hold, took)),
        Err(error) => Err(Refusal::new(ExitCode::Broken, error.to_string())),
    }
}

/// Dials as soon as the box can be reached, and returns when it is also on record as up.
async fn dial(
    from: &impl Bringer,
    hold: &Hold,
    openings: &Openings,
    shown: Option<&UserSide>,
) -> Result<Result<(Upstream, Took), DialError>, Refusal> {
    let began = Instant::now();
    let endpoint = tokio::select! {
        endpoint = hold.reachable() => endpoint?,
        never = show(hold, shown) => match never {},
    };
    let up_after = Phase::Box.took_since(began);
    let began = Instant::now();
    let dialled = from.dial(&endpoint, openings.clone()).await;
    let dialled = dialled.map(|upstream| (upstream, [up_after, Phase::Dial.took_since(began)]));
    let up = hold.up().await?;
    // It may have come up elsewhere in the end.
    if up == endpoint {
        return Ok(dialled);
    }
    Ok(from.dial(&up, openings.clone()).await.map(|upstream| (upstream, [up_after, began.elapsed()])))
}

/// Tells a person who looks on what is being waited for. Each step is told once, a place in the line when it changes.
async fn show(hold: &Hold, shown: Option<&UserSide>) -> Infallible {
    let Some(user) = shown else { return std::future::pending().await };
    let mut progress = hold.progress();
    let mut last = None;
    loop {
        let step = progress.borrow_and_update().clone();
        let place = match step {
            Progress::WaitingForInstance { position, .. } => Some(position),
            _ => None,
        };
        let worth = !matches!(step, Progress::Looking | Progress::Reachable(_));
        let told = Some((std::mem::discriminant(&step), place));
        if worth && told != last {
            user.stderr_line(&format!("boxpool: {}", plain(&step.to_string()))).await;
            last = told;
        }
        if progress.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
