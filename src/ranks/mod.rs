//! The processes that work together on one run: who this one is, how they meet, the few
//! operations in which they meet, and what becomes of the others when one fails.

mod division;
mod error;
mod error_file;
pub mod launch;
pub mod place;
mod slurm;
pub mod watch;

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

pub use error::RanksError;
pub use place::{Launcher, Place};

use self::watch::{Member, Watch};
use crate::torch::c10d::{C10dError, Group, Reducer, Store};
use crate::torch::host::values;
use crate::torch::nccl;

/// How long processes wait for each other: one of them may validate or write meanwhile.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// How long they wait for each other at the start.
const START: Duration = Duration::from_secs(600);
/// How often those that are waited for are named.
const NAMED_EVERY: Duration = Duration::from_secs(10);

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
        let watch = Watch::begin(&store, member, Some(end)).map_err(RanksError::Operation)?;
        let watch = Arc::new(watch);
        let process = ThisProcess {
            watch: watch.clone(),
            local_rank: place.local_rank,
        };
        let _ = THIS.set(process);
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

    /// The tensors of all processes, by rank along the first dimension, on the CPU; of one
    /// process its own.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn gathered(&self, tensor: &Tensor) -> Result<Tensor, RanksError> {
        let tensor = tensor.to_device(Device::Cpu);
        match &self.joined {
            None => Ok(tensor),
            Some(joined) => {
                let all = joined.together(|group| group.all_gather(&tensor))?;
                Ok(Tensor::cat(&all, 0))
            }
        }
    }

    /// The sum of the tensors of all processes, on the CPU.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn summed(&self, tensor: &Tensor) -> Result<Tensor, RanksError> {
        let tensor = tensor.to_device(Device::Cpu);
        match &self.joined {
            None => Ok(tensor),
            Some(joined) => joined.together(|group| group.sum(&tensor)),
        }
    }

    /// Whether this is so in any process.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn any(&self, here: bool) -> Result<bool, RanksError> {
        if self.is_alone() {
            return Ok(here);
        }
        let flag = Tensor::from_slice(&[i64::from(here)]);
        Ok(values::<i64>(&self.summed(&flag)?)[0] > 0)
    }

    /// Whether any process is asked to stop, by `stop` or because the store is gone.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn any_stops(&self, stop: &AtomicBool) -> Result<bool, RanksError> {
        let watch = self
            .joined
            .as_ref()
            .and_then(|joined| joined.watch.as_ref());
        let lost = watch.is_some_and(|watch| watch.is_lost());
        self.any(lost || stop.load(Ordering::Relaxed))
    }

    /// Waits until all processes come here.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn wait_for_all(&self) -> Result<(), RanksError> {
        self.any(false).map(drop)
    }

    /// Checks that all processes have the same `weights` after `step`, by a checksum of each
    /// tensor's bits.
    ///
    /// # Errors
    ///
    /// One that has others, and a process that is gone.
    pub fn check_same<'a>(
        &self,
        weights: impl Iterator<Item = &'a Tensor>,
        step: u64,
    ) -> Result<(), RanksError> {
        if self.is_alone() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        let sums: Vec<Tensor> = weights.map(bits).collect();
        let own = Tensor::stack(&sums, 0).to_device(Device::Cpu);
        log::debug!(
            "rank {}: the weights of step {step} have the checksum {:016x}",
            self.rank,
            values::<i64>(&bits(&own))[0]
        );
        let all = self.gathered(&own.unsqueeze(0))?;
        let first = all.get(0);
        match (1..self.count).find(|&rank| all.get(rank as i64) != first) {
            Some(rank) => Err(RanksError::Diverged { rank, step }),
            None => Ok(()),
        }
    }

    /// The number that the first process has; the others wait for it.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn of_first(&self, value: f64) -> Result<f64, RanksError> {
        let Some(joined) = &self.joined else {
            return Ok(value);
        };
        let value = Tensor::from_slice(&[value]).to_kind(Kind::Double);
        joined.together(|group| group.broadcast(&[&value]))?;
        Ok(values(&value)[0])
    }

    /// The path that the first process finds; the others wait for it.
    ///
    /// # Errors
    ///
    /// What `find` says, and a process that is gone.
    pub fn path_of_first<E: From<RanksError>>(
        &self,
        find: impl FnOnce() -> Result<Option<PathBuf>, E>,
    ) -> Result<Option<PathBuf>, E> {
        use std::os::unix::ffi::OsStrExt;
        const NAME: &str = "resumed";
        let Some(joined) = &self.joined else {
            return find();
        };
        if self.is_first() {
            let found = find()?;
            let bytes = found
                .as_deref()
                .map_or(&[][..], |p| p.as_os_str().as_bytes());
            let set = joined.store.set(NAME, bytes);
            set.map_err(|error| joined.why(error))?;
            return Ok(found);
        }
        let got = joined.store.get(NAME);
        let bytes = got.map_err(|error| joined.why(error))?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&bytes));
        Ok((!bytes.is_empty()).then(|| path.to_path_buf()))
    }

    /// Gives `tensors` the values that they have in the first process.
    ///
    /// # Errors
    ///
    /// Tensors of other shapes there, and a process that is gone.
    pub fn share_of_first(&self, tensors: &[&Tensor]) -> Result<(), RanksError> {
        match &self.joined {
            None => Ok(()),
            Some(joined) => joined.together(|group| group.broadcast(tensors)),
        }
    }

    /// Gives `tensors`, leaves of the graph, the values of the first process, and begins to
    /// average their gradients, which are sent in bf16 if it is so. All of them must get one
    /// in every backward pass.
    ///
    /// # Errors
    ///
    /// Other tensors in another process, or one that is gone.
    pub fn average_gradients(&mut self, tensors: &[&Tensor], bf16: bool) -> Result<(), RanksError> {
        self.share_of_first(tensors)?;
        if let Some(joined) = &mut self.joined {
            let reducer = joined.together(|group| Reducer::new(group, tensors, bf16))?;
            joined.reducer = Some(reducer);
        }
        Ok(())
    }

    /// Whether gradients are averaged from now on, or need not be.
    pub fn averages_gradients(&self) -> bool {
        self.joined.as_ref().is_none_or(|j| j.reducer.is_some())
    }

    /// Called before the forward pass of a part of a step; the `last` part's backward pass
    /// ends with averaged gradients.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn before_part(&self, last: bool) -> Result<(), RanksError> {
        self.with_reducer(|reducer| reducer.prepare(last))
    }

    /// Called after the backward pass of the last part of a step.
    ///
    /// # Errors
    ///
    /// Gradients that did not come, and a process that is gone.
    pub fn after_step(&self) -> Result<(), RanksError> {
        self.with_reducer(Reducer::check)
    }

    fn with_reducer(
        &self,
        call: impl FnOnce(&Reducer) -> Result<(), C10dError>,
    ) -> Result<(), RanksError> {
        let Some(joined) = &self.joined else {
            return Ok(());
        };
        match &joined.reducer {
            Some(reducer) => call(reducer).map_err(|error| joined.why(error)),
            None => Ok(()),
        }
    }
}

/// A sum over the bits of a tensor, int64, that depends on their places.
fn bits(tensor: &Tensor) -> Tensor {
    let of_kind = match tensor.kind() {
        Kind::Double | Kind::Int64 => Kind::Int64,
        Kind::Float => Kind::Int,
        _ => Kind::Int16,
    };
    let words = tensor.contiguous().view_dtype(of_kind).view(-1);
    let places = Tensor::arange(words.size()[0], (Kind::Int64, words.device())) * 2 + 1;
    (words.to_kind(Kind::Int64) * places).sum(Kind::Int64)
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

/// Waits in `store` until `count` have come, of whom this is `number`. The first one names
/// those that are still waited for.
fn wait_for_all(
    store: &Store,
    what: &'static str,
    number: usize,
    count: usize,
) -> Result<(), RanksError> {
    const ARRIVED: &str = "arrived";
    let here = |number: usize| format!("{ARRIVED}/{number}");
    let look = || -> Result<Vec<usize>, C10dError> {
        if store.add(ARRIVED, 0)? >= count as i64 {
            return Ok(Vec::new());
        }
        let mut missing = Vec::new();
        for number in 0..count {
            if store.try_get(&here(number))?.is_none() {
                missing.push(number);
            }
        }
        Ok(missing)
    };
    let since = Instant::now();
    let mut named = Instant::now();
    let arrive = || {
        store.set(&here(number), b"1")?;
        store.add(ARRIVED, 1)
    };
    arrive().map_err(RanksError::Operation)?;
    loop {
        let missing = look().map_err(RanksError::Operation)?;
        if missing.is_empty() {
            return Ok(());
        }
        if since.elapsed() > START {
            return Err(RanksError::Absent {
                what,
                count,
                missing,
                seconds: START.as_secs(),
            });
        }
        if number == 0 && named.elapsed() > NAMED_EVERY {
            named = Instant::now();
            let missing = error::numbers(&missing);
            log::warn!("of {count} {what}s these have not come yet: {missing}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The address by which this machine reaches `host`: where the others find it too.
fn own_address(host: &str, port: u16) -> IpAddr {
    let find = || {
        let there = (host, port).to_socket_addrs().ok()?.next()?;
        let any: IpAddr = match there {
            std::net::SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        // Nothing is sent: only the route is asked for.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(there).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    find().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// This process as one of several.
struct ThisProcess {
    watch: Arc<Watch>,
    local_rank: usize,
}

static THIS: OnceLock<ThisProcess> = OnceLock::new();
/// Whether this process has said what it ends of.
static SAID: AtomicBool = AtomicBool::new(false);

/// The number of this process on its machine, if it is one of several that have met.
pub fn local_rank() -> Option<usize> {
    THIS.get().map(|this| this.local_rank)
}

/// Whether this process is one of several that have met.
pub fn is_joined() -> bool {
    THIS.get().is_some()
}

/// Tells the other processes, if there are any, that this one ends with an error, and torchrun
/// too. Returns what this process is to print: nothing where another one of its machine says
/// it.
pub fn fail(message: &str) -> Option<String> {
    let Some(this) = THIS.get() else {
        return Some(message.into());
    };
    let says = tell(this, message);
    // Nothing is asked of the store while the process ends.
    this.watch.leave();
    says
}

fn tell(this: &ThisProcess, message: &str) -> Option<String> {
    let Member {
        number,
        count,
        node,
        ..
    } = this.watch.member();
    let mut message = message.to_string();
    if is_of_connection(&message) && this.watch.trouble().is_none() {
        // A backward pass that another process does not come to.
        if let Some(trouble) = this.watch.found_within_word() {
            message = trouble.to_string();
        }
    }
    let first = match this.watch.trouble() {
        // It ends because another one does.
        Some(RanksError::Failed { .. }) | None => this.watch.fail(&message),
        Some(_) => None,
    };
    let Some(first) = first else {
        error_file::write(&message, watch::now() + 1);
        // The store may have gone with the first process of this machine.
        return said(this.local_rank < 2).then_some(message);
    };
    let own = first.number == number;
    error_file::write(&message, first.at + u64::from(!own));
    let speaks = match first.node == node {
        true => first.by == Some(number),
        false => this.local_rank == 0,
    };
    let message = match own {
        true => format!("rank {number} of {count}: {message}"),
        false => message,
    };
    said(speaks).then_some(message)
}

/// Whether an error of libtorch's is about a connection to another process.
fn is_of_connection(message: &str) -> bool {
    let words = [
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "Timed out waiting",
        "gloo",
        "NCCL",
    ];
    words.iter().any(|words| message.contains(words))
}

/// Whether this process speaks, and has not spoken.
fn said(speaks: bool) -> bool {
    speaks && !SAID.swap(true, Ordering::Relaxed)
}

/// Before this process is ended because of another one.
fn end(trouble: &RanksError) {
    if let Some(message) = fail(&trouble.to_string()) {
        eprintln!("error: {message}");
    }
}
