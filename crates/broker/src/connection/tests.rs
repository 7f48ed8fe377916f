//! A connection between a real pair of sockets, with requests that are answered when the test says so.

use std::sync::Mutex;
use std::task::Waker;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// Long enough for anything that happens at all, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);
/// Longer than anything here waits.
const LATER: Duration = Duration::from_secs(60);
/// Long enough to be rather sure that nothing happens.
const NOT_NOW: Duration = Duration::from_millis(150);

/// Answers `r...` at once, `w...` when told to, `s...` not at all, and closes on `c...`.
#[derive(Default)]
struct Echo {
    metrics: Metrics,
    /// In the order of their requests.
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    handled: Mutex<Vec<Bytes>>,
}

fn framed(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[..], content].concat()
}

impl Service for Echo {
    fn handle(&self, request: Bytes, _peer: Peer) -> Handled {
        self.handled.lock().unwrap().push(request.clone());
        let answer = vec![Bytes::from(framed(&request))];
        match request.first() {
            Some(b's') => Handled::Silent,
            Some(b'c') => Handled::Close(CloseReason::Malformed),
            Some(b'w') => {
                let (tell, told) = oneshot::channel();
                self.waiting.lock().unwrap().push(tell);
                Handled::Waiting(Box::pin(async move {
                    told.await.unwrap();
                    Handled::Ready(answer)
                }))
            }
            _ => Handled::Ready(answer),
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

struct Fixture {
    echo: Arc<Echo>,
    client: TcpStream,
    ended: JoinHandle<CloseReason>,
    shutdown: watch::Sender<bool>,
    budget: Arc<InputBudget>,
}

const LIMITS: ConnectionLimits = ConnectionLimits {
    request_bytes_max: 1 << 20,
    requests_in_flight_max: 4,
    unread_response_bytes_max: 1 << 20,
    idle_max: SOON,
    slow_peer_max: LATER,
};

async fn connect(limits: ConnectionLimits, queued_bytes_max: usize) -> Fixture {
    connect_within(limits, queued_bytes_max, Arc::new(OutputBudget::new(1 << 30))).await
}

async fn connect_within(limits: ConnectionLimits, queued_bytes_max: usize, output: Arc<OutputBudget>) -> Fixture {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, address) = listener.accept().await.unwrap();
    let echo = Arc::new(Echo::default());
    let budget = Arc::new(InputBudget::new(queued_bytes_max));
    let (shutdown, receiver) = watch::channel(false);
    let budgets = Budgets { input: budget.clone(), output };
    let served = serve(echo.clone(), stream, Peer { address }, limits, budgets, receiver);
    Fixture { echo, client, ended: tokio::spawn(served), shutdown, budget }
}

impl Fixture {
    async fn send(&mut self, content: &[u8]) {
        self.client.write_all(&framed(content)).await.unwrap();
    }

    async fn answer(&mut self) -> Vec<u8> {
        let length = timeout(SOON, self.client.read_u32()).await.unwrap().unwrap();
        let mut content = vec![0; length as usize];
        timeout(SOON, self.client.read_exact(&mut content)).await.unwrap().unwrap();
        content
    }

    async fn no_answer(&mut self) {
        assert!(timeout(NOT_NOW, self.client.read_u8()).await.is_err(), "nothing is answered yet");
    }

    /// Lets the oldest request that waits be answered.
    async fn tell(&self) {
        for _ in 0..SOON.as_millis() {
            if !self.echo.waiting.lock().unwrap().is_empty() {
                let tell = self.echo.waiting.lock().unwrap().remove(0);
                tell.send(()).unwrap();
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("no request waits");
    }

    async fn handled(&self, count: usize) {
        for _ in 0..SOON.as_millis() {
            if self.echo.handled.lock().unwrap().len() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} of {count} requests were handled", self.echo.handled.lock().unwrap().len());
    }

    async fn end(self) -> CloseReason {
        timeout(SOON, self.ended).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn requests_are_answered_in_their_order_and_those_behind_a_waiting_one_wait() {
    let mut fixture = connect(LIMITS, 1 << 20).await;
    for content in [&b"r1"[..], b"s2", b"w3", b"r4"] {
        fixture.send(content).await;
    }
    assert_eq!(fixture.answer().await, b"r1");
    fixture.no_answer().await;
    assert_eq!(fixture.echo.handled.lock().unwrap().len(), 3, "the fourth is not looked at before the third is done");
    fixture.tell().await;
    assert_eq!(fixture.answer().await, b"w3");
    assert_eq!(fixture.answer().await, b"r4");
    drop(fixture.client);
    assert_eq!(timeout(SOON, fixture.ended).await.unwrap().unwrap(), CloseReason::ByPeer);
}

#[tokio::test]
async fn what_was_asked_before_a_wrong_request_is_still_answered() {
    let mut fixture = connect(LIMITS, 1 << 20).await;
    fixture.send(b"w1").await;
    fixture.send(b"c2").await;
    fixture.tell().await;
    assert_eq!(fixture.answer().await, b"w1");
    assert_eq!(timeout(SOON, fixture.client.read(&mut [0])).await.unwrap().unwrap(), 0, "then it is closed");
    assert_eq!(fixture.end().await, CloseReason::Malformed);
}

#[tokio::test]
async fn a_size_that_no_request_may_have_ends_the_connection_before_anything_is_kept_for_it() {
    for size in [-1_i32, (1 << 20) + 1, i32::MAX, i32::MIN] {
        let mut fixture = connect(LIMITS, 1 << 20).await;
        fixture.client.write_i32(size).await.unwrap();
        fixture.client.write_all(b"some bytes").await.unwrap();
        assert_eq!(fixture.end().await, CloseReason::RequestSize, "{size}");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_is_noticed_while_its_request_waits() {
    let mut fixture = connect(LIMITS, 1 << 20).await;
    fixture.send(b"w1").await;
    fixture.handled(1).await;
    drop(fixture.client);
    assert_eq!(timeout(SOON, fixture.ended).await.unwrap().unwrap(), CloseReason::ByPeer);
    let mut cut = connect(LIMITS, 1 << 20).await;
    cut.client.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    drop(cut.client);
    assert_eq!(timeout(SOON, cut.ended).await.unwrap().unwrap(), CloseReason::ByPeerInRequest);
}

#[tokio::test]
async fn idle_and_slow_peers_are_closed_for_their_own_reasons() {
    let short = Duration::from_millis(100);
    let idle = connect(ConnectionLimits { idle_max: short, ..LIMITS }, 1 << 20).await;
    assert_eq!(idle.end().await, CloseReason::Idle);

    let mut slow = connect(ConnectionLimits { slow_peer_max: short, ..LIMITS }, 1 << 20).await;
    slow.client.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    assert_eq!(slow.end().await, CloseReason::SlowRequest);

    let limits = ConnectionLimits { slow_peer_max: short, unread_response_bytes_max: 64 << 20, ..LIMITS };
    let mut deaf = connect(limits, 1 << 30).await;
    // Far more than the operating system keeps for a peer that does not read.
    let large = vec![b'r'; 1 << 20];
    let mut ended = deaf.ended;
    let sending = async {
        loop {
            if deaf.client.write_all(&framed(&large)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        reason = timeout(SOON, &mut ended) => assert_eq!(reason.unwrap().unwrap(), CloseReason::SlowReader),
        () = sending => unreachable!("never ends"),
    }
}

#[tokio::test]
async fn a_shutdown_answers_what_was_asked_and_takes_nothing_more() {
    let mut fixture = connect(LIMITS, 1 << 20).await;
    fixture.send(b"w1").await;
    fixture.handled(1).await;
    fixture.shutdown.send(true).unwrap();
    fixture.no_answer().await;
    fixture.tell().await;
    assert_eq!(fixture.answer().await, b"w1");
    assert_eq!(fixture.end().await, CloseReason::Shutdown);
}

#[tokio::test]
async fn over_the_budget_nothing_is_read_until_others_hold_less() {
    let kept = 200 << 10;
    let fixture = connect(LIMITS, kept).await;
    // Somebody else holds everything, and has its turn to read on.
    let mut turn = None;
    fixture.budget.change(0, kept);
    fixture.budget.room(&mut turn, &Context::from_waker(Waker::noop()));
    let (budget, echo) = (fixture.budget.clone(), fixture.echo.clone());
    let mut fixture = fixture;
    let large = vec![b's'; 100 << 10];
    fixture.send(&large).await;
    tokio::time::sleep(NOT_NOW).await;
    assert!(echo.handled.lock().unwrap().is_empty(), "the request is left with the operating system");
    assert!(budget.bytes() < kept + (32 << 10), "{} bytes are held", budget.bytes());
    budget.change(kept, 0);
    fixture.handled(1).await;
    drop(fixture.client);
    assert_eq!(timeout(SOON, fixture.ended).await.unwrap().unwrap(), CloseReason::ByPeer);
    assert_eq!(budget.bytes(), 0, "nothing stays counted");
}

#[tokio::test]
async fn over_the_budget_the_first_reads_on_and_then_the_next() {
    let kept = 200 << 10;
    let mut fixture = connect(LIMITS, kept).await;
    let mut turn = None;
    fixture.budget.change(0, kept);
    fixture.budget.room(&mut turn, &Context::from_waker(Waker::noop()));
    fixture.send(&vec![b's'; 100 << 10]).await;
    tokio::time::sleep(NOT_NOW).await;
    assert!(fixture.echo.handled.lock().unwrap().is_empty(), "it is another one's turn");
    fixture.budget.leave(&mut turn);
    fixture.handled(1).await;
    assert_eq!(fixture.budget.bytes(), kept, "nothing was given back by others");
}

#[tokio::test]
async fn over_the_budget_who_sends_nothing_when_it_has_its_turn_is_let_go() {
    let kept = 200 << 10;
    let mut fixture = connect(LIMITS, kept).await;
    fixture.budget.change(0, kept);
    let half = &framed(&vec![b's'; 200 << 10])[..100 << 10];
    fixture.client.write_all(half).await.unwrap();
    assert_eq!(timeout(SOON, fixture.ended).await.unwrap().unwrap(), CloseReason::SlowRequest);
    assert_eq!(fixture.budget.bytes(), kept, "what it held is given back");
}

#[tokio::test]
async fn who_reads_nothing_is_let_go_when_others_need_the_memory() {
    let output = Arc::new(OutputBudget::new(8 << 20));
    let limits = ConnectionLimits { unread_response_bytes_max: 64 << 20, ..LIMITS };
    let deaf = connect_within(limits, 1 << 30, output.clone()).await;
    let mut other = connect_within(limits, 1 << 30, output.clone()).await;
    let mut deaf_client = deaf.client;
    let sending = tokio::spawn(async move {
        let large = framed(&vec![b'r'; 1 << 20]);
        while deaf_client.write_all(&large).await.is_ok() {}
    });
    while output.bytes() < 8 << 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    other.send(b"r1").await;
    assert_eq!(other.answer().await, b"r1");
    assert_eq!(timeout(SOON, deaf.ended).await.unwrap().unwrap(), CloseReason::SlowReader);
    assert_eq!(output.bytes(), 0, "nothing stays counted");
    assert_eq!(other.echo.metrics.limit_hits(Limit::QueuedResponseBytes), 1);
    timeout(SOON, sending).await.unwrap().unwrap();
}
