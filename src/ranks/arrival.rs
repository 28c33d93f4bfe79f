//! How the processes find each other.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use super::{error, RanksError, START};
use crate::torch::c10d::{C10dError, Store};

/// How often those that are waited for are named.
const NAMED_EVERY: Duration = Duration::from_secs(10);

/// Waits in `store` until `count` have come, of whom this is `number`. The first one names
/// those that are still waited for.
pub(super) fn wait_for_all(
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
pub(super) fn own_address(host: &str, port: u16) -> IpAddr {
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
