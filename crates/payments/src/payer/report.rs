//! How a lane's count of service gets to the scoreboard: what is due to be told, what the provider took or refused,
//! and what its payer may post alone. Times are arguments; nothing here signs or sends.

use assay_protocol::{B256, Service, ServiceRecord, Timestamp};
use serde::{Deserialize, Serialize};

use super::Lane;

/// What is known of the records of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The newest totals that the provider took.
    pub taken: Service,
    /// The newest that it refused, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<(Service, String)>,
    pub sent_at: Timestamp,
    /// What the scoreboard shows.
    pub posted: Service,
    /// Since when something that was told is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unposted_since: Option<Timestamp>,
}

/// What a provider said to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    Taken,
    Refused(String),
    /// It could not be asked.
    Unheard,
}

impl Lane {
    fn record_of(&self, service: Service) -> ServiceRecord {
        ServiceRecord {
            channel_id: self.channel_id,
            service,
        }
    }

    /// The record to tell now: when totals changed and `interval_s` has passed, and once every `again_s` while the
    /// chain does not show them, for a provider may forget. Totals that were refused are not told twice.
    pub fn report_due(
        &self,
        now: Timestamp,
        interval_s: u64,
        again_s: u64,
    ) -> Option<ServiceRecord> {
        let report = &self.report;
        let refused = report.refused.as_ref().map(|(service, _)| *service);
        if self.service == report.posted || refused == Some(self.service) {
            return None;
        }
        let wait = if self.service == report.taken {
            again_s.max(interval_s)
        } else {
            interval_s
        };
        (now >= report.sent_at.plus_seconds(wait)).then(|| self.record_of(self.service))
    }

    /// Notes what the provider said to these totals.
    pub fn reported(&self, service: Service, said: Reported, at: Timestamp) -> Self {
        let mut next = self.clone();
        let report = &mut next.report;
        report.sent_at = at;
        report.unposted_since.get_or_insert(at);
        match said {
            Reported::Taken => {
                report.taken = service;
                report.refused = None;
            }
            Reported::Refused(reason) => report.refused = Some((service, reason)),
            Reported::Unheard => {}
        }
        next
    }

    /// Notes what the scoreboard shows of this channel.
    pub fn posted(&self, posted: Service, at: Timestamp) -> Self {
        let mut next = self.clone();
        if posted != self.report.posted {
            // Something came: whatever is still missing has its time from now on.
            next.report.unposted_since = (posted != self.service).then_some(at);
        }
        next.report.posted = posted;
        next
    }

    /// What the payer may post alone: failures that the provider has not let count for `after_s`. Returns that record
    /// and the one it replaces.
    pub fn overdue(&self, now: Timestamp, after_s: u64) -> Option<(ServiceRecord, ServiceRecord)> {
        let posted = self.report.posted;
        let since = self.report.unposted_since?;
        if now < since.plus_seconds(after_s) || self.service.failures <= posted.failures {
            return None;
        }
        let alone = Service {
            failures: self.service.failures,
            ..posted
        };
        let mut previous = self.record_of(posted);
        if posted == Service::default() {
            // Before the first record, the scoreboard wants all of it zero.
            previous.channel_id = B256::ZERO;
        }
        Some((self.record_of(alone), previous))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, id, lane};
    use super::*;
    use assay_protocol::{Answered, DurationMs, MicroUsd};

    const ANSWER: Answered = Answered {
        charged: MicroUsd(10),
        prompt_tokens: 5,
        output_tokens: 7,
        ttft: DurationMs(120),
        rest: DurationMs(300),
    };

    fn later(seconds: u64) -> Timestamp {
        NOW.plus_seconds(seconds)
    }

    fn served() -> Lane {
        let (running, _) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        running.answered(id(1), &ANSWER).unwrap()
    }

    fn failed() -> Lane {
        let (running, _) = served().start(MicroUsd(30), id(2), NOW).unwrap();
        running.failed(id(2)).unwrap()
    }

    #[test]
    fn an_answer_is_counted_with_its_charge_and_only_once() {
        let lane = served();
        assert_eq!(lane.charged, lane.service.revenue);
        assert_eq!((lane.service.requests, lane.service.failures), (1, 0));
        assert!(lane.service.is_sound());
        assert!(lane.answered(id(1), &ANSWER).is_err());
        // A request that was lost over a crash and settled after all is charged, but not counted.
        let (running, _) = lane.start(MicroUsd(30), id(2), NOW).unwrap();
        let found = running.reopened().answered(id(2), &ANSWER).unwrap();
        assert_eq!((found.charged.0, found.service.requests), (20, 1));
    }

    #[test]
    fn a_refusal_counts_nothing_and_a_broken_answer_a_failure() {
        let lane = failed();
        assert_eq!((lane.service.requests, lane.service.failures), (1, 1));
        let (running, _) = lane.start(MicroUsd(30), id(3), NOW).unwrap();
        assert_eq!(
            running.settled(id(3), MicroUsd(0)).unwrap().service,
            lane.service
        );
        assert_eq!(running.lost(id(3)).unwrap().service, lane.service);
    }

    #[test]
    fn totals_are_told_once_an_interval_and_never_again_once_refused() {
        let lane = served();
        let record = lane.report_due(NOW, 60, 600).unwrap();
        assert_eq!(record.service, lane.service);
        let taken = lane.reported(record.service, Reported::Taken, NOW);
        assert_eq!(taken.report_due(later(60), 60, 600), None);
        assert!(taken.report_due(later(600), 60, 600).is_some());
        assert_eq!(
            taken
                .posted(record.service, NOW)
                .report_due(later(600), 60, 600),
            None
        );
        let unheard = lane.reported(record.service, Reported::Unheard, NOW);
        assert_eq!(unheard.report_due(later(59), 60, 600), None);
        assert!(unheard.report_due(later(60), 60, 600).is_some());
        let refused = lane.reported(record.service, Reported::Refused("no".into()), NOW);
        assert_eq!(refused.report_due(later(600), 60, 600), None);
        let (running, _) = refused.start(MicroUsd(30), id(3), NOW).unwrap();
        let more = running.answered(id(3), &ANSWER).unwrap();
        assert!(more.report_due(later(60), 60, 600).is_some());
    }

    #[test]
    fn only_failures_that_nobody_posted_for_long_are_posted_alone() {
        let lane = failed();
        let told = lane.reported(lane.service, Reported::Refused("no".into()), NOW);
        assert_eq!(told.overdue(later(99), 100), None);
        let (alone, previous) = told.overdue(later(100), 100).unwrap();
        assert_eq!(
            (previous.channel_id, previous.service),
            (B256::ZERO, Service::default())
        );
        assert_eq!(
            alone.service,
            Service {
                failures: 1,
                ..Service::default()
            }
        );
        let done = told.posted(alone.service, later(100));
        assert_eq!(done.overdue(later(500), 100), None);
        // Answers alone are nothing that a payer could make count.
        let quiet = served().reported(served().service, Reported::Taken, NOW);
        assert_eq!(quiet.overdue(later(500), 100), None);
    }
}
