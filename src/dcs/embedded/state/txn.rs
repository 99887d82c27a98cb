//! Transactions: compare, then one of two lists of operations, at one revision.
//!
//! As in etcd, every compare is decided before anything is written, those of nested transactions included.

use std::cmp::Ordering;

use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbKeyValue, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest,
    PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};

use super::super::refusal::Refusal;
use super::key_range::KeyRange;
use super::{State, check, weight_of_put};

// The numbers of the protocol's enum of results, whose type is not public.
const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

/// A transaction whose compares are decided: only the operations that will run.
struct Path {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    /// A range, put or deletion.
    Single(PbTxnOpRequest),
    Nested(Path),
}

impl State {
    /// Carries out a transaction.
    pub(in super::super) fn txn(&mut self, request: PbTxnRequest) -> Result<PbTxnResponse, Refusal> {
        check::txn(&request)?;
        let path = self.decide(request);
        let mut more_bytes = 0;
        // etcd looks at all puts first, then at all ranges; with both wrong, the answer tells.
        self.can_write(&path, &mut more_bytes)?;
        self.can_show(&path)?;
        if more_bytes > 0 {
            self.has_room(more_bytes)?;
        }
        let response = self.carry_out(path);
        self.seal();
        Ok(PbTxnResponse { header: Some(self.header()), ..response })
    }

    fn decide(&self, request: PbTxnRequest) -> Path {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let chosen = if succeeded { request.success } else { request.failure };
        let step = |PbTxnRequestOp { request }| match request? {
            PbTxnOpRequest::RequestTxn(inner) => Some(Step::Nested(self.decide(inner))),
            single => Some(Step::Single(single)),
        };
        Path { succeeded, steps: chosen.into_iter().filter_map(step).collect() }
    }

    /// Whether a compare holds for each key it names; for a missing one all numbers are 0, but no value compares.
    fn holds(&self, compare: &PbCompare) -> bool {
        let range = KeyRange::new(&compare.key, &compare.range_end);
        let mut keys = self.keys_in(&range).peekable();
        if keys.peek().is_none() {
            return compare.target != PbCompareTarget::Value as i32 && compares(compare, &PbKeyValue::default());
        }
        keys.all(|kv| compares(compare, kv))
    }

    /// Whether the chosen puts can be done; counts the bytes they may add.
    fn can_write(&self, path: &Path, more_bytes: &mut usize) -> Result<(), Refusal> {
        for step in &path.steps {
            match step {
                Step::Nested(inner) => self.can_write(inner, more_bytes)?,
                Step::Single(PbTxnOpRequest::RequestPut(put)) => {
                    self.can_put(put)?;
                    *more_bytes = more_bytes.saturating_add(weight_of_put(put));
                }
                Step::Single(_) => {}
            }
        }
        Ok(())
    }

    /// Whether the chosen ranges can be read.
    fn can_show(&self, path: &Path) -> Result<(), Refusal> {
        for step in &path.steps {
            match step {
                Step::Nested(inner) => self.can_show(inner)?,
                Step::Single(PbTxnOpRequest::RequestRange(range)) => self.can_read(range)?,
                Step::Single(_) => {}
            }
        }
        Ok(())
    }

    /// Runs the operations; the answer has no header, those inside only a revision, and nested
    /// transactions not even that, as in etcd.
    fn carry_out(&mut self, path: Path) -> PbTxnResponse {
        let mut response = PbTxnResponse { header: None, succeeded: path.succeeded, responses: Vec::new() };
        for step in path.steps {
            let answer = match step {
                Step::Nested(inner) => {
                    let mut inner = self.carry_out(inner);
                    inner.header = Some(PbResponseHeader::default());
                    PbTxnOpResponse::ResponseTxn(inner)
                }
                Step::Single(single) => self.carry_out_one(single),
            };
            response.responses.push(PbResponseOp { response: Some(answer) });
        }
        response
    }

    fn carry_out_one(&mut self, request: PbTxnOpRequest) -> PbTxnOpResponse {
        match request {
            PbTxnOpRequest::RequestRange(range) => {
                let mut response = self.read(&range);
                response.header = self.inner_header();
                PbTxnOpResponse::ResponseRange(response)
            }
            PbTxnOpRequest::RequestPut(put) => {
                let mut response = self.write_key(put);
                response.header = self.inner_header();
                PbTxnOpResponse::ResponsePut(response)
            }
            PbTxnOpRequest::RequestDeleteRange(delete) => {
                let mut response = self.delete_keys(&delete);
                response.header = self.inner_header();
                PbTxnOpResponse::ResponseDeleteRange(response)
            }
            // `decide` has turned these into paths.
            PbTxnOpRequest::RequestTxn(_) => PbTxnOpResponse::ResponseTxn(PbTxnResponse::default()),
        }
    }

    /// The revision as seen from inside: the new one as soon as something was written.
    fn inner_header(&self) -> Option<PbResponseHeader> {
        let revision = if self.open.is_empty() { self.revision } else { self.next_revision() };
        Some(PbResponseHeader { revision, ..PbResponseHeader::default() })
    }
}

/// Compares one key. An operand that does not fit the target counts as 0 or empty.
fn compares(compare: &PbCompare, kv: &PbKeyValue) -> bool {
    let operand = &compare.target_union;
    let ordering = match PbCompareTarget::try_from(compare.target) {
        Ok(PbCompareTarget::Version) => {
            kv.version.cmp(&if let Some(PbTargetUnion::Version(n)) = operand { *n } else { 0 })
        }
        Ok(PbCompareTarget::Create) => {
            kv.create_revision.cmp(&if let Some(PbTargetUnion::CreateRevision(n)) = operand { *n } else { 0 })
        }
        Ok(PbCompareTarget::Mod) => {
            kv.mod_revision.cmp(&if let Some(PbTargetUnion::ModRevision(n)) = operand { *n } else { 0 })
        }
        Ok(PbCompareTarget::Lease) => kv.lease.cmp(&if let Some(PbTargetUnion::Lease(n)) = operand { *n } else { 0 }),
        Ok(PbCompareTarget::Value) => {
            kv.value.as_slice().cmp(if let Some(PbTargetUnion::Value(v)) = operand { v } else { &[] })
        }
        // A target from a newer protocol: refuse to call it true.
        Err(_) => return false,
    };
    match compare.result {
        EQUAL => ordering == Ordering::Equal,
        NOT_EQUAL => ordering != Ordering::Equal,
        GREATER => ordering == Ordering::Greater,
        LESS => ordering == Ordering::Less,
        _ => false,
    }
}
