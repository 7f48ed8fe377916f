//! Responses on their way to the peer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::output_budget::{FREE_BYTES, OutputBudget};

/// Chunks handed to the operating system at once.
const CHUNKS_PER_WRITE: usize = 64;

pub(crate) struct Output {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    last_progress: Instant,
    budget: Arc<OutputBudget>,
    /// What of the budget is ours.
    counted: usize,
    /// How the budget knows us while the peer has to read.
    blocked: Option<u64>,
    is_cut: Arc<AtomicBool>,
}

impl Output {
    pub fn new(budget: Arc<OutputBudget>) -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            last_progress: Instant::now(),
            budget,
            counted: 0,
            blocked: None,
            is_cut: Arc::default(),
        }
    }

    pub fn push(&mut self, chunks: Vec<Bytes>) {
        if self.chunks.is_empty() {
            self.last_progress = Instant::now();
        }
        for chunk in chunks.into_iter().filter(|chunk| !chunk.is_empty()) {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
        self.count();
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes that wait for the peer.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// When the peer last took something, or the output last began to fill.
    pub fn last_progress(&self) -> Instant {
        self.last_progress
    }

    /// Whether the memory is needed, and the peer has read nothing for too long.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Keeps the budget's count of our bytes right.
    fn count(&mut self) {
        let now = self.bytes.saturating_sub(FREE_BYTES);
        if now != self.counted {
            self.budget.change(self.counted, now);
            self.counted = now;
        }
    }

    /// Writes as much as the peer takes; returns how many bytes that were.
    pub fn poll_write(&mut self, stream: &TcpStream, context: &mut Context<'_>) -> io::Result<usize> {
        let mut wrote = 0;
        while !self.chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); CHUNKS_PER_WRITE];
            let count = self.chunks.len().min(CHUNKS_PER_WRITE);
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
            }
            match stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.advance(written);
                    wrote += written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_write_ready(context) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => break,
                },
                Err(error) => return Err(error),
            }
        }
        if wrote > 0 {
            self.last_progress = Instant::now();
            self.count();
        }
        self.note_blocked(wrote > 0, context);
        Ok(wrote)
    }

    /// Tells the budget whether a peer that holds much has to read.
    fn note_blocked(&mut self, has_read: bool, context: &Context<'_>) {
        match self.blocked {
            Some(id) if self.counted == 0 => {
                self.budget.unblock(id);
                self.blocked = None;
            }
            None if self.counted == 0 => {}
            Some(_) if !has_read => {}
            id => self.blocked = Some(self.budget.block(id, self.last_progress, &self.is_cut, context)),
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.chunks.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.chunks.pop_front();
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.budget.change(self.counted, 0);
        if let Some(id) = self.blocked {
            self.budget.unblock(id);
        }
    }
}
