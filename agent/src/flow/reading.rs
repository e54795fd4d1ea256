//! Who reads a connection's requests, and those of them that have ids which their reader may pass on.

use super::chains::Note;
use super::exchange;
use crate::model::{Call, Connection};
use crate::proto::Begun;

/// Requests with ids that wait for their reader to be told.
const BEGUN: usize = 64;

/// What is known of a connection's reader.
#[derive(Default)]
pub(super) struct Reading {
    /// The process, where it was told; 0: it was not.
    tgid: u32,
    /// Requests with ids that began before that.
    begun: Vec<Begun>,
    /// Records with requests may have been lost, of which the reader's chains have not been told.
    missed: bool,
}

impl Reading {
    /// This process reads its requests.
    pub(super) fn by(&mut self, tgid: u32) {
        self.tgid = tgid;
    }

    /// Records were lost.
    pub(super) fn doubt(&mut self) {
        self.missed = true;
    }

    /// What is to be noted at `at` of requests that began on a server's connection; `ended`: calls of this record, of
    /// which nothing is.
    pub(super) fn notes(
        &mut self,
        new: Vec<Begun>,
        ended: &[Call],
        (connection, mirror): (&Connection, Option<&Connection>),
        at: u64,
        notes: &mut Vec<Note>,
    ) {
        if self.missed && self.tgid != 0 {
            self.missed = false;
            notes.push(Note::Lost { tgid: self.tgid, at });
        }
        if new.is_empty() && self.begun.is_empty() {
            return;
        }
        self.begun.extend(new);
        let over = |begun: &Begun| ended.iter().any(|call| call.request.first.seq == begun.first.seq);
        self.begun.retain(|begun| !over(begun));
        if self.tgid == 0 {
            // A client that sends so many before one is read: the first of them are forgotten.
            let over = self.begun.len().saturating_sub(BEGUN);
            self.missed |= over > 0;
            self.begun.drain(..over);
            return;
        }
        for begun in std::mem::take(&mut self.begun) {
            if let Some((_, ids)) = exchange::ids(connection, mirror, false, begun.first.seq, begun.context) {
                notes.push(Note::Begun { span: ids.span, tgid: self.tgid, begun });
            }
        }
    }
}
