//! The processes that work together on one run: who this one is, how they meet, the few
//! operations in which they meet, and what becomes of the others when one fails.

mod arrival;
mod collective;
mod division;
mod error;
mod error_file;
mod failure;
pub mod launch;
pub mod place;
mod slurm;
pub mod watch;

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tch::Device;

pub use error::RanksError;
pub use failure::{fail, is_joined, local_rank};
pub use place::{Launcher, Place};

use self::arrival::{own_address, wait_for_all};
use self::watch::{Member, Watch};
use crate::torch::c10d::{C10dError, Group, Reducer, Store};
use crate::torch::nccl;

/// How long processes wait for each other: one of them may validate or write meanwhile.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// How long they wait for each other at the start.
const START: Duration = Duration::from_secs(600);

/// This process among those that work together.
pub struct Ranks {
    rank: usize,
    count: usize,
    joined: Option<Joined>,
}

struct Joined {
    // Fields are dropped in this order.
    reducer: Option<Reducer>,
    group: Group,
    store: Store,
    /// What outlives the processes of one attempt of the launcher's.
    lasting: Store,
    attempt: u64,
    /// None among the threads of one process.
    watch: Option<Arc<Watch>>,
}

/// Where the processes of an attempt meet.
fn meeting(store: &Store, attempt: u64) -> Result<Store, C10dError> {
    store.below(&format!("/vqdiffusion/{attempt}"))
}

/// What outlives the attempts.
fn lasting(store: &Store) -> Result<Store, C10dError> {
    store.below("/vqdiffusion")
}

const BEGUN: &str = "begun";

impl Ranks {
    /// A process that works alone.
    pub fn alone() -> Self {
        Ranks {
            rank: 0,
            count: 1,
            joined: None,
        }
    }

    /// This process among those that the environment names ([`Place`]), on the CPU; alone
    /// where it names none.
    ///
    /// # Errors
    ///
    /// As for [`join`](Self::join), and variables without sense.
    pub fn from_environment() -> Result<Self, RanksError> {
        match Place::from_environment()? {
            Some(place) => Self::join(&place),
            None => Ok(Self::alone()),
        }
    }

    /// Joins the others, who are waited for.
    ///
    /// # Errors
    ///
    /// A store that does not answer, and processes that do not come.
    pub fn join(place: &Place) -> Result<Self, RanksError> {
        let (rank, count) = (place.rank, place.count);
        let holds_store = rank == 0 && !place.held;
        let own = Store::at(&place.host, place.port, holds_store, START).map_err(|source| {
            RanksError::NoStore {
                host: place.host.clone(),
                port: place.port,
                source,
            }
        })?;
        let store = meeting(&own, place.attempt).map_err(RanksError::Operation)?;
        Watch::announce(&store, rank).map_err(RanksError::Operation)?;
        wait_for_all(&store, "rank", rank, count)?;
        let member = Member {
            what: "rank",
            number: rank,
            count,
            node: place.node,
            holder: if place.held { "the launcher" } else { "rank 0" },
            holds_store,
        };
        let watch =
            Watch::begin(&store, member, Some(failure::end)).map_err(RanksError::Operation)?;
        let watch = Arc::new(watch);
        failure::joined(watch.clone(), place.local_rank);
        let address = own_address(&place.host, place.port);
        let group =
            Group::gloo(&store, rank, count, address, PATIENCE).map_err(|e| watch.why(e))?;
        Ok(Ranks {
            rank,
            count,
            joined: Some(Joined {
                reducer: None,
                group,
                store,
                lasting: lasting(&own).map_err(RanksError::Operation)?,
                attempt: place.attempt,
                watch: Some(watch),
            }),
        })
    }

    /// Member `rank` of the `count` that meet in `store` and are threads of one process: they
    /// need no watch.
    ///
    /// # Errors
    ///
    /// Members that do not come.
    pub fn meet(store: Store, rank: usize, count: usize) -> Result<Self, RanksError> {
        let address = Ipv4Addr::LOCALHOST.into();
        let meet = || {
            Ok(Joined {
                reducer: None,
                group: Group::gloo(&store, rank, count, address, PATIENCE)?,
                lasting: lasting(&store)?,
                store,
                attempt: 0,
                watch: None,
            })
        };
        Ok(Ranks {
            rank,
            count,
            joined: Some(meet().map_err(RanksError::Operation)?),
        })
    }

    /// Prepares for tensors on `device`: on a GPU they are exchanged over NCCL.
    ///
    /// # Errors
    ///
    /// No NCCL, and processes that do not come.
    pub fn use_device(&self, device: Device) -> Result<(), RanksError> {
        match (&self.joined, device) {
            (Some(joined), Device::Cuda(index)) => {
                let nccl = nccl::load()?;
                joined.together(|group| group.add_nccl(nccl, &joined.store, index, PATIENCE))
            }
            _ => Ok(()),
        }
    }

    /// The number of this process.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this process writes and speaks for all.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    pub fn is_alone(&self) -> bool {
        self.count == 1
    }

    /// This process's part of the samples of a step, which can be divided.
    pub fn own(&self, samples: &Range<u64>) -> Range<u64> {
        let each = (samples.end - samples.start) / self.count as u64;
        let first = samples.start + each * self.rank as u64;
        first..first + each
    }

    /// Says that the run has begun, so that a restart goes on with what it wrote.
    ///
    /// # Errors
    ///
    /// A store that is gone.
    pub fn begun(&self) -> Result<(), RanksError> {
        match &self.joined {
            Some(joined) if self.is_first() => {
                let set = joined.lasting.set(BEGUN, b"1");
                set.map_err(|error| joined.why(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether the launcher has started the processes anew after a failure of a run that had
    /// [`begun`](Self::begun).
    ///
    /// # Errors
    ///
    /// A store that is gone.
    pub fn is_restart(&self) -> Result<bool, RanksError> {
        match &self.joined {
            Some(joined) if joined.attempt > 0 => {
                let begun = joined.lasting.try_get(BEGUN);
                Ok(begun.map_err(|error| joined.why(error))?.is_some())
            }
            _ => Ok(false),
        }
    }

    /// An error if the store is gone: the run cannot go on, but its processes still answer
    /// each other.
    ///
    /// # Errors
    ///
    /// That it is.
    pub fn check_store(&self) -> Result<(), RanksError> {
        let watch = self
            .joined
            .as_ref()
            .and_then(|joined| joined.watch.as_ref());
        match watch.filter(|watch| watch.is_lost()) {
            Some(watch) => watch.trouble().map_or(Ok(()), Err),
            None => Ok(()),
        }
    }
}

impl Joined {
    /// An operation of all processes; where it fails, the one that is to blame is waited for.
    fn together<T>(
        &self,
        call: impl FnOnce(&Group) -> Result<T, C10dError>,
    ) -> Result<T, RanksError> {
        call(&self.group).map_err(|error| self.why(error))
    }

    fn why(&self, error: C10dError) -> RanksError {
        match &self.watch {
            Some(watch) => watch.why(error),
            None => RanksError::Operation(error),
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // Who panics has not done its part: `fail` says what became of it.
        if let Some(watch) = self.watch.as_ref().filter(|_| !std::thread::panicking()) {
            watch.leave();
        }
    }
}
