//! Processes that watch each other: each says every second that it lives, and who fails says
//! why. An operation of all processes tells neither: over NCCL it waits, over Gloo it names an
//! address.
//!
//! One thread talks to the store, over a connection of its own; another one looks at what that
//! found, as a store whose host is halted answers nothing, and ends the process where its main
//! thread does not end by itself.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{mpsc, Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::RanksError;
use crate::torch::c10d::{C10dError, Store};

/// How often a process says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// A process that has said nothing for so long is dead or halted.
const SILENT: Duration = Duration::from_secs(10);
/// A store that has answered nothing for so long is gone.
const UNANSWERED: Duration = Duration::from_secs(8);
/// A process whose threads have not run for so long was halted itself, and judges nobody.
const HALTED: Duration = Duration::from_secs(4);
/// How long the main thread has to end by itself when another process has failed.
const GRACE: Duration = Duration::from_secs(3);
/// The same when the store is gone: it may write a checkpoint meanwhile.
const GRACE_TO_SAVE: Duration = Duration::from_secs(5);
/// How long an operation that failed waits for the word that says why.
const WORD: Duration = Duration::from_secs(12);
/// How long who holds the store waits for the others to leave it.
const LEAVE: Duration = Duration::from_secs(10);
/// How many of those behind it, in a circle, a process watches.
const WATCHED: usize = 16;

const FAILED: &str = "failed";
const LEFT: &[u8] = b"left";

fn beat_of(number: usize) -> String {
    format!("alive/{number}")
}

/// Who failed first, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub number: usize,
    pub cause: String,
    /// Who found it: the process itself, another one, or none, the launcher of its machine.
    pub by: Option<usize>,
    /// The machine where it was found.
    pub node: usize,
    /// In seconds since 1970.
    pub at: u64,
}

/// Who watches.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// `rank` or `node`.
    pub what: &'static str,
    pub number: usize,
    pub count: usize,
    /// Its machine.
    pub node: usize,
    /// Who holds the store, in words.
    pub holder: &'static str,
    /// Whether the store ends with it.
    pub holds_store: bool,
}

#[derive(Default)]
struct Found {
    failure: Option<Failure>,
    /// Why the store is taken to be gone.
    lost: Option<String>,
    left: bool,
}

struct Shared {
    member: Member,
    found: Mutex<Found>,
    /// When the store last answered.
    answered: Mutex<Instant>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn failed(&self, failure: &Failure) -> RanksError {
        RanksError::Failed {
            what: self.member.what,
            number: failure.number,
            count: self.member.count,
            cause: failure.cause.clone(),
        }
    }

    /// What another process, or the store, came to.
    fn trouble(&self) -> Option<RanksError> {
        let found = locked(&self.found);
        if let Some(failure) = &found.failure {
            return Some(self.failed(failure));
        }
        let (holder, cause) = (self.member.holder, found.lost.clone()?);
        Some(RanksError::Lost { holder, cause })
    }
}

enum Request {
    Fail(String, Sender<Failure>),
    Leave(Sender<()>),
}

/// This process among those that watch each other.
pub struct Watch {
    shared: Arc<Shared>,
    requests: Mutex<Sender<Request>>,
}

impl Watch {
    /// What each must do before it arrives: from then on it counts as alive.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub fn announce(store: &Store, number: usize) -> Result<(), C10dError> {
        store.set(&beat_of(number), b"0")
    }

    /// Watches the others, all of whom have been announced in `store`. With `ends` this
    /// process is ended where another one, or the store, has failed and the main thread does
    /// not end by itself; `ends` is called before.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub fn begin(
        store: &Store,
        member: Member,
        ends: Option<fn(&RanksError)>,
    ) -> Result<Self, C10dError> {
        let own = store.again()?;
        let shared = Arc::new(Shared {
            member,
            found: Mutex::default(),
            answered: Mutex::new(Instant::now()),
        });
        let (requests, inbox) = mpsc::channel();
        let here = shared.clone();
        std::thread::spawn(move || keep_in_touch(&own, &here, &inbox));
        let here = shared.clone();
        std::thread::spawn(move || judge(&here, ends));
        Ok(Watch {
            shared,
            requests: Mutex::new(requests),
        })
    }

    pub fn member(&self) -> Member {
        self.shared.member
    }

    /// What another process, or the store, came to, as far as it is known.
    pub fn trouble(&self) -> Option<RanksError> {
        self.shared.trouble()
    }

    /// Whether the store is gone.
    pub fn is_lost(&self) -> bool {
        locked(&self.shared.found).lost.is_some()
    }

    /// Why an operation of all processes failed, which is waited for.
    pub fn why(&self, error: C10dError) -> RanksError {
        let found = self.found_within_word();
        found.unwrap_or(RanksError::Operation(error))
    }

    /// What another process, or the store, came to, which is waited for.
    pub fn found_within_word(&self) -> Option<RanksError> {
        let since = Instant::now();
        while since.elapsed() < WORD {
            if let Some(trouble) = self.trouble() {
                return Some(trouble);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Tells the others that this process has failed, and why. Returns who failed first, which
    /// may be another one; nothing where the store is gone.
    pub fn fail(&self, cause: &str) -> Option<Failure> {
        let (reply, answer) = mpsc::channel();
        let request = Request::Fail(cause.into(), reply);
        locked(&self.requests).send(request).ok()?;
        answer.recv_timeout(Duration::from_secs(3)).ok()
    }

    /// This process has done its part: its silence is no failure from now on, and nothing
    /// that befalls the others ends it.
    pub fn leave(&self) {
        let (reply, answer) = mpsc::channel();
        if locked(&self.requests).send(Request::Leave(reply)).is_ok() {
            let _ = answer.recv_timeout(LEAVE + BEAT);
        }
        locked(&self.shared.found).left = true;
    }
}

/// The thread that talks to the store.
fn keep_in_touch(store: &Store, shared: &Shared, inbox: &Receiver<Request>) {
    let Member { number, count, .. } = shared.member;
    let behind = (1..count).take(WATCHED);
    let mut others: Vec<Other> = behind.map(|n| Other::new((number + n) % count)).collect();
    let mut beats = 0_u64;
    let mut last = Instant::now();
    let mut left = false;
    loop {
        // Who has left only answers.
        let request = match left {
            true => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => inbox.recv_timeout(BEAT.saturating_sub(last.elapsed())),
        };
        let done = match request {
            Ok(Request::Fail(cause, reply)) => {
                tell(store, shared, number, &cause).map(|failure| drop(reply.send(failure)))
            }
            Ok(Request::Leave(reply)) => {
                left = true;
                let done = leave(store, shared);
                locked(&shared.found).left = true;
                let _ = reply.send(());
                done
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if last.elapsed() > HALTED {
                    others
                        .iter_mut()
                        .for_each(|other| other.since = Instant::now());
                }
                last = Instant::now();
                beats += 1;
                beat(store, shared, &mut others, beats)
            }
        };
        match done {
            Ok(()) => *locked(&shared.answered) = Instant::now(),
            Err(_) if left => return,
            Err(error) => {
                let mut found = locked(&shared.found);
                found.lost.get_or_insert(error.to_string());
                return;
            }
        }
    }
}

/// What was last heard of another process.
struct Other {
    number: usize,
    said: Vec<u8>,
    since: Instant,
}

impl Other {
    fn new(number: usize) -> Self {
        Other {
            number,
            said: Vec::new(),
            since: Instant::now(),
        }
    }
}

fn beat(store: &Store, shared: &Shared, others: &mut [Other], beats: u64) -> Result<(), C10dError> {
    store.set(&beat_of(shared.member.number), beats.to_string().as_bytes())?;
    if let Some(failure) = store.try_get(FAILED)? {
        found(shared, &failure);
        return Ok(());
    }
    for other in others {
        let said = store.get(&beat_of(other.number))?;
        if said != other.said {
            (other.said, other.since) = (said, Instant::now());
        } else if said != LEFT && other.since.elapsed() > SILENT {
            let cause = format!(
                "it has not been heard of for {} s: killed, halted or cut off",
                SILENT.as_secs()
            );
            tell(store, shared, other.number, &cause)?;
        }
    }
    Ok(())
}

/// Says that process `number` failed, unless something was said before; what was said.
fn tell(store: &Store, shared: &Shared, number: usize, cause: &str) -> Result<Failure, C10dError> {
    let Member {
        number: own, node, ..
    } = shared.member;
    let failure = tell_for(store, number, cause, Some(own), node)?;
    locked(&shared.found).failure.get_or_insert(failure.clone());
    Ok(failure)
}

fn found(shared: &Shared, bytes: &[u8]) {
    if let Ok(failure) = serde_json::from_slice(bytes) {
        locked(&shared.found).failure.get_or_insert(failure);
    }
}

/// Says in `store` that process `number` failed, as found by process `by` of the machine
/// `node`, or by its launcher. Returns what was said first.
///
/// # Errors
///
/// A store that does not answer.
pub fn tell_for(
    store: &Store,
    number: usize,
    cause: &str,
    by: Option<usize>,
    node: usize,
) -> Result<Failure, C10dError> {
    let failure = Failure {
        number,
        cause: cause.into(),
        by,
        node,
        at: now(),
    };
    let bytes = serde_json::to_vec(&failure).unwrap_or_default();
    let first = store.set_first(FAILED, &bytes)?;
    Ok(serde_json::from_slice(&first).unwrap_or(failure))
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Says that this process has left. Who holds the store waits for the others.
fn leave(store: &Store, shared: &Shared) -> Result<(), C10dError> {
    let Member {
        number,
        count,
        holds_store,
        ..
    } = shared.member;
    store.set(&beat_of(number), LEFT)?;
    let since = Instant::now();
    let mut waits: Vec<usize> = match holds_store {
        true => (0..count).filter(|&other| other != number).collect(),
        false => Vec::new(),
    };
    while !waits.is_empty() && since.elapsed() < LEAVE && store.try_get(FAILED)?.is_none() {
        let mut still = Vec::new();
        for other in waits {
            if store.get(&beat_of(other))? != LEFT {
                still.push(other);
            }
        }
        waits = still;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The thread that looks at what was found.
fn judge(shared: &Shared, ends: Option<fn(&RanksError)>) {
    const LOOK: Duration = Duration::from_millis(200);
    let mut last = Instant::now();
    let mut since: Option<Instant> = None;
    loop {
        std::thread::sleep(LOOK);
        let halted = last.elapsed() > HALTED;
        last = Instant::now();
        if halted {
            *locked(&shared.answered) = Instant::now();
        }
        let silent = locked(&shared.answered).elapsed();
        let mut found = locked(&shared.found);
        if found.left {
            return;
        }
        if silent > UNANSWERED {
            let cause = format!("no answer for {} s", UNANSWERED.as_secs());
            found.lost.get_or_insert(cause);
        }
        let grace = match (&found.failure, &found.lost) {
            // Who failed is ending.
            (Some(failure), _) if failure.number == shared.member.number => continue,
            (Some(_), _) => GRACE,
            (None, Some(_)) => GRACE_TO_SAVE,
            (None, None) => continue,
        };
        drop(found);
        if since.get_or_insert_with(Instant::now).elapsed() < grace {
            continue;
        }
        if let (Some(ends), Some(trouble)) = (ends, shared.trouble()) {
            ends(&trouble);
            // SAFETY: ends the process at once: its main thread may wait for ever.
            unsafe { libc::_exit(2) }
        }
        return;
    }
}
