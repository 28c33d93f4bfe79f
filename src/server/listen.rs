//! Connections: accepted up to a bound, given time to say what they want, and ended with
//! grace.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::future::{select, Either};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::model::Phase;
use super::settings::{Settings, HEAD_TIMEOUT, MOST_CONNECTIONS};
use super::state::Server;

/// How often it is looked whether the server should end.
const LOOK: Duration = Duration::from_millis(20);
/// Time that connections have to say that their jobs were given up.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("--host {host} --port {port}: {source}")]
    Bind {
        host: String,
        port: u16,
        source: std::io::Error,
    },
    #[error("the server's threads could not be started: {0}")]
    Runtime(#[source] std::io::Error),
}

/// A socket that is listened on, and the threads that serve it.
pub struct Listener {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub fn bind(settings: &Settings) -> Result<Self, ListenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(ListenError::Runtime)?;
        let bound = || {
            let host = settings.host.trim_matches(['[', ']']);
            let socket = StdListener::bind((host, settings.port))?;
            socket.set_nonblocking(true)?;
            let _inside = runtime.enter();
            let listener = TcpListener::from_std(socket)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bound().map_err(|source| ListenError::Bind {
            host: settings.host.clone(),
            port: settings.port,
            source,
        })?;
        Ok(Listener {
            runtime,
            listener,
            address,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stop` is set or the model's thread ends, then lets the jobs
    /// finish for up to `grace`. How many jobs were given up.
    pub fn run(self, router: Router, server: &Server, grace: Duration, stop: &AtomicBool) -> usize {
        let Listener {
            runtime, listener, ..
        } = self;
        let given_up = runtime.block_on(async {
            let connections = GracefulShutdown::new();
            {
                let accepting = pin!(accept(listener, router, &connections));
                select(accepting, pin!(ended(server, stop))).await;
            } // no connection is accepted any more
            end(connections, server, grace).await
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
        given_up
    }
}

async fn ended(server: &Server, stop: &AtomicBool) {
    let lost = || {
        let phase = server.model.as_ref().map(|model| *model.phase.borrow());
        phase == Some(Phase::Ended)
    };
    while !stop.load(Ordering::Relaxed) && !lost() {
        sleep(LOOK).await;
    }
}

async fn accept(listener: TcpListener, router: Router, connections: &GracefulShutdown) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(false)
        .max_buf_size(64 << 10);
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No file descriptors left, or a client that went away at once.
                log::debug!("a connection was not accepted: {error}");
                sleep(LOOK).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true); // slower without, no more
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
}

/// Lets the jobs finish for up to `grace`; how many were given up.
async fn end(connections: GracefulShutdown, server: &Server, grace: Duration) -> usize {
    let until = Instant::now() + grace;
    server.ending.send_replace(true);
    let Some(model) = &server.model else {
        let _ = timeout(grace.min(LAST_WORDS), connections.shutdown()).await;
        return 0;
    };
    model.queue.close();
    let mut closed = pin!(connections.shutdown());
    let mut all_closed = false;
    let phase = model.phase.subscribe();
    while Instant::now() < until {
        let jobs_done = *phase.borrow() == Phase::Ended || model.queue.is_idle();
        if jobs_done && all_closed {
            return 0;
        }
        if jobs_done {
            // Only answers are under way.
            let _ = timeout(LAST_WORDS, closed).await;
            return 0;
        }
        // A future that is done is not asked again.
        all_closed = match all_closed {
            true => {
                sleep(LOOK).await;
                true
            }
            false => matches!(
                select(&mut closed, pin!(sleep(LOOK))).await,
                Either::Left(_)
            ),
        };
    }
    let given_up = model.queue.give_up();
    if !all_closed {
        let _ = timeout(LAST_WORDS, closed).await;
    }
    given_up
}
