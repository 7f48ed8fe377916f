//! The log against disks that fail: one test for each rule, and a simulation of many rules at once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod acknowledgement;
mod concurrency;
mod damage;
mod fixtures;
mod full_disk;
mod limits;
mod producers;
mod recovery;
mod simulation;
mod support;
