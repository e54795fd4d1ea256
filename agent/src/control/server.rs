//! The server: a thread of its own, so that nothing that is asked holds up what is watched.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use super::{
    Backend, Error, GROUP, Holder,
    places::{self, Places},
    routes::{self, Caller, Context},
    socket,
};

/// Threads for answers that wait: one to ask, one to tell.
const WAITING: usize = 2 * (places::CHANGERS + places::READERS);
/// A request's head must be whole within this time.
const HEAD: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// What is being told when the agent stops may end.
const GRACE: Duration = Duration::from_millis(500);

/// A server at work. Dropping it ends it and removes the socket.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    holder: Holder,
}

impl Server {
    /// Listens on the socket that `holder` has the right to, and answers from `backend`.
    pub fn start(holder: Holder, backend: Arc<dyn Backend>) -> Result<Self, Error> {
        let failed = |doing| {
            let path = holder.path().to_owned();
            move |source| Error::Io { path, doing, source }
        };
        let listener = holder.listen(socket::group("/etc/group", GROUP))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WAITING)
            .thread_name("weir-control")
            .build()
            .map_err(failed("starting its runtime"))?;
        let (stop, stopping) = watch::channel(false);
        let listener = {
            let _inside = runtime.enter();
            UnixListener::from_std(listener).map_err(failed("watching it"))?
        };
        let context = Context { backend, stopping };
        let thread = std::thread::Builder::new()
            .name("weir-control".into())
            .spawn(move || {
                runtime.block_on(serve(&listener, context));
                runtime.shutdown_timeout(GRACE);
            })
            .map_err(failed("starting its thread"))?;
        Ok(Self { stop, thread: Some(thread), holder })
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.holder.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: &UnixListener, context: Context) {
    let places = Places::new();
    let mut stopping = context.stopping.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let caller = caller(&stream);
                let place = tokio::select! {
                    biased;
                    () = stopped(&mut stopping) => break,
                    place = places.take(caller) => place,
                };
                let Some(place) = place else {
                    // Not waited for, so that no queue of such connections grows.
                    let _ = stream.try_write(places::FULL);
                    continue;
                };
                let context = context.clone();
                tokio::spawn(async move {
                    connection(stream, caller, context).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of files, as a rule: it passes.
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // What is being told may end; then it is cut.
    let _ = timeout(GRACE, places.empty()).await;
}

async fn connection(stream: UnixStream, caller: Caller, context: Context) {
    let service = service_fn(|request: Request<Incoming>| {
        let context = &context;
        async move { Ok::<_, std::convert::Infallible>(routes::answer(context, caller, request).await) }
    });
    let mut stopping = context.stopping.clone();
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // Whoever asked badly or went away; nothing to be done.
        tracing::debug!(%error, "a control connection ended");
    }
}

/// Waits until the agent stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The socket's mode lets in who may read; to change needs root, or the user that the agent runs as.
fn caller(stream: &UnixStream) -> Caller {
    // SAFETY: no arguments, always succeeds.
    let own = unsafe { libc::geteuid() };
    let Ok(peer) = stream.peer_cred() else { return Caller { may_change: false, uid: None, pid: None } };
    Caller { may_change: peer.uid() == 0 || peer.uid() == own, uid: Some(peer.uid()), pid: peer.pid() }
}
