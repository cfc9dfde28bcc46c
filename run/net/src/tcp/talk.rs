//! Who speaks when. Where question and answer take turns, the answer acknowledges the question: one frame less for each.

use super::Millis;

/// How long an answer may take that is to carry an acknowledgement with it. A guest that waited for it to send the rest
/// of its question would wait in vain, but such a guest does not take turns.
const ANSWER_MS: Millis = 10;
/// Answers to single questions, one behind the other, before the next question's acknowledgement waits.
const TURNS: u8 = 2;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// Questions of one segment that were answered, one behind the other.
    turns: u8,
    /// Segments since the last answer.
    questions: u8,
    /// When an acknowledgement goes that waits for an answer.
    ack_at: Option<Millis>,
}

impl Talk {
    /// The guest sent a segment, which is a short one or not. True if its acknowledgement waits.
    pub(super) fn asked(&mut self, is_short: bool, now: Millis) -> bool {
        self.questions = self.questions.saturating_add(1);
        let is_question = is_short && self.questions == 1;
        if !is_question {
            self.turns = 0;
        }
        self.ack_at = (is_question && self.turns >= TURNS).then_some(now + ANSWER_MS);
        self.ack_at.is_some()
    }

    /// Data went to the guest.
    pub(super) fn answered(&mut self) {
        if self.questions == 1 {
            self.turns = self.turns.saturating_add(1);
        }
        (self.questions, self.ack_at) = (0, None);
    }

    /// An acknowledgement went on its own.
    pub(super) fn acknowledged(&mut self) {
        self.ack_at = None;
    }

    /// When [`give_up`](Self::give_up) is to be called.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.ack_at
    }

    /// Whether no answer came in time: then the next questions are acknowledged at once.
    pub(super) fn give_up(&mut self, now: Millis) -> bool {
        let is_late = self.ack_at.is_some_and(|at| at <= now);
        if is_late {
            // An answer that is late is no turn.
            *self = Self { turns: 0, questions: u8::MAX, ack_at: None };
        }
        is_late
    }
}
