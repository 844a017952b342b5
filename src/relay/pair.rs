//! One session with its two sockets: carries out what the session core says.

use std::{
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, event::Event, unix::SourceFd};

use super::{
    accounting::SessionGuard,
    context::Context,
    inbox::NewSession,
    intake::{Intake, Pipe},
    lane::LegEnd,
    leg::{Broken, Leg, Liveness, Spill, end_of, look_interval},
    policy::Policy,
    session::{Command, Session},
};
use crate::{
    admission::ConnectionPermit,
    websocket::{Endpoint, PerEndpoint, close_code::CloseText, closing_handshake::Action},
};

/// In what pieces a direction that was blocked is read once the process holds more than its budget, and in what pieces
/// the others.
const SMALL_READ: usize = 4 * 1024;
const MODEST_READ: usize = 16 * 1024;

/// How often the kernel is asked, at first, whether a leg that is to be reset has acknowledged everything.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(5);

/// A session and its sockets. What every message touches comes first.
#[repr(C)]
pub(super) struct Pair {
    legs: PerEndpoint<Leg>,
    policy: Arc<Policy>,
    ticket: SessionGuard,
    /// Its place in the worker's timers.
    pub(super) timer: Option<Instant>,
    /// That time has come.
    pub(super) is_due: bool,
    /// A time was set that may come before it.
    has_new_time: bool,
    /// It stands in the worker's queue.
    pub(super) is_runnable: bool,
    session: Session,
    _place: ConnectionPermit,
    drain: Option<Box<(Instant, CloseText, Instant)>>,
    resetting: Option<Resetting>,
}

/// The leg that is to be reset, as soon as it has acknowledged everything.
#[derive(Debug, Clone, Copy)]
struct Resetting {
    endpoint: Endpoint,
    since: Instant,
    ask_at: Instant,
}

/// Which two tokens a session's legs have: one behind the other.
pub(super) fn token(key: usize, endpoint: Endpoint) -> Token {
    Token(key * 2 + usize::from(endpoint == Endpoint::Server))
}

/// The session and the leg of a token.
pub(super) fn key(Token(token): Token) -> (usize, Endpoint) {
    (token / 2, if token % 2 == 0 { Endpoint::Client } else { Endpoint::Server })
}

impl Pair {
    /// Takes a session over: its sockets tell of themselves from now on, also of what came before.
    pub(super) fn adopt(new: NewSession, key: usize, registry: &Registry, context: &mut Context) -> io::Result<Self> {
        let NewSession { sockets, early, policy, extensions, opened, mut ticket, place } = new;
        for endpoint in Endpoint::BOTH {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&sockets[endpoint]);
            registry.register(&mut SourceFd(&fd), token(key, endpoint), Interest::READABLE | Interest::WRITABLE)?;
        }
        ticket.open();
        let PerEndpoint { client, server } = sockets;
        let mut pair = Self {
            session: Session::new(Arc::clone(&policy), extensions, opened, context.random()),
            legs: PerEndpoint { client: Leg::new(client), server: Leg::new(server) },
            ticket,
            policy,
            _place: place,
            timer: None,
            is_due: false,
            has_new_time: true,
            is_runnable: false,
            drain: None,
            resetting: None,
        };
        for from in Endpoint::BOTH {
            if !early[from].is_empty() {
                pair.received(from, &early[from], context);
            }
        }
        Ok(pair)
    }

    /// The kernel told of a leg.
    pub(super) fn notice(&mut self, endpoint: Endpoint, event: &Event, context: &mut Context) {
        let leg = &mut self.legs[endpoint];
        leg.readable |= event.is_readable() || event.is_error();
        leg.hung_up |= event.is_read_closed() || event.is_error();
        if event.is_error()
            && let Some(error) = leg.take_error()
        {
            // While the other endpoint does not take what was read, no read would find it.
            self.lose(endpoint, &error, context);
        } else if event.is_writable() && leg.spill.is_some() {
            self.flush(endpoint, context);
        }
    }

    /// Does what is to be done now: reads at most once from each leg. Says whether the session is over.
    pub(super) fn turn(&mut self, intake: &mut Intake, context: &mut Context) -> bool {
        if mem::take(&mut self.is_due) {
            self.act_on_time(context);
        }
        for from in Endpoint::BOTH {
            if let Some(limit) = self.may_read(from, context) {
                self.read(from, limit, intake, context);
            }
        }
        self.session.is_closing() && self.obey(context)
    }

    /// Whether a turn would read something.
    pub(super) fn has_work(&self, context: &Context) -> bool {
        Endpoint::BOTH.into_iter().any(|from| self.may_read(from, context).is_some())
    }

    /// When the pair wants its next turn, where that may come before the timer that it has. Until a session begins to
    /// close, its own deadlines are only ever put off.
    pub(super) fn earlier_timer(&mut self) -> Option<Instant> {
        let may_be_earlier = mem::take(&mut self.has_new_time) || self.timer.is_none() || self.session.is_closing();
        may_be_earlier.then(|| self.next_timer()).flatten()
    }

    fn next_timer(&self) -> Option<Instant> {
        [
            self.session.deadline(),
            self.legs.client.check_at,
            self.legs.server.check_at,
            self.legs.client.broken.and_then(|broken| broken.give_up_at),
            self.legs.server.broken.and_then(|broken| broken.give_up_at),
            self.legs.client.read_on_at(),
            self.legs.server.read_on_at(),
            self.resetting.map(|resetting| resetting.ask_at),
            self.drain.as_ref().map(|drain| drain.0),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Closes the session for a drain, at `at`; what is left of it at `cut_at` is cut.
    pub(super) fn drain(&mut self, at: Instant, text: CloseText, cut_at: Instant) {
        self.drain = Some(Box::new((at, text, cut_at)));
        self.has_new_time = true;
    }

    /// Closes the session because an operator wants it.
    pub(super) fn close(&mut self, text: CloseText, now: Instant) {
        self.session.close(Action::Control, text, now);
    }

    /// Whether [`Pair::close`] would do anything: the session is not closing already.
    pub(super) fn is_closing(&self) -> bool {
        self.session.is_closing()
    }

    pub(super) fn route(&self) -> &str {
        self.ticket.route()
    }

    /// Tells the time for which bytes have waited for slow readers so far.
    pub(super) fn tell_blocked_time(&mut self, context: &Context) {
        for to in Endpoint::BOTH {
            if let Some(spill) = &mut self.legs[to].spill {
                let waited = context.now.saturating_duration_since(mem::replace(&mut spill.since, context.now));
                self.ticket.traffic(context.index, to.other()).write_blocked(waited);
            }
        }
    }

    /// Lets go of the sockets and tells the ending.
    pub(super) fn end(mut self, intake: &mut Intake, context: &mut Context) {
        let tcp = PerEndpoint::from_fn(|endpoint| self.legs[endpoint].tcp_info());
        self.drop_spills(context);
        for endpoint in Endpoint::BOTH {
            if self.session.ends_by_reset(endpoint) {
                self.legs[endpoint].reset_on_close();
            } else if self.session.reads(endpoint) {
                // It may send faster than this reads: the FIN must come before the RST that answers what comes later.
                if self.session.writes(endpoint) {
                    self.legs[endpoint].finish();
                }
                self.legs[endpoint].drain(&mut intake.bytes);
            }
        }
        self.ticket.close(self.session.finish(context.now), tcp);
    }

    /// Forgets what waits for slow readers.
    pub(super) fn drop_spills(&mut self, context: &mut Context) {
        for endpoint in Endpoint::BOTH {
            self.drop_spill(endpoint, context);
        }
    }

    /// Cuts the session: closewatch ends.
    pub(super) fn cut(&mut self, now: Instant) {
        self.session.cut(Action::Drain, now);
    }

    fn act_on_time(&mut self, context: &mut Context) {
        let now = context.now;
        if let Some(drain) = self.drain.take_if(|drain| drain.0 <= now) {
            let (_, text, cut_at) = *drain;
            self.session.drain(text, cut_at, now);
        }
        for endpoint in Endpoint::BOTH {
            if self.legs[endpoint].check_at.is_some_and(|at| at <= now) {
                self.check_liveness(endpoint, context);
            }
            if let Some(spill) = &mut self.legs[endpoint].spill {
                spill.read_on_at.take_if(|at| *at <= now);
            }
            if let Some(Broken { end, give_up_at: Some(at), .. }) = self.legs[endpoint].broken
                && at <= now
            {
                self.leg_ended(endpoint, end, context);
                self.session.give_up(now);
            }
        }
        if let Some(resetting) = self.resetting
            && resetting.ask_at <= now
        {
            self.reset(resetting.endpoint, context);
        }
        self.session.wake(now);
    }

    /// How much may be read from an endpoint, where there is something to read, and room for it.
    #[inline]
    fn may_read(&self, from: Endpoint, context: &Context) -> Option<usize> {
        if !self.legs[from].readable || !self.session.reads(from) {
            return None;
        }
        let limit = self.read_limit(from, context).min(Intake::SIZE);
        (limit > 0).then_some(limit)
    }

    fn read(&mut self, from: Endpoint, limit: usize, intake: &mut Intake, context: &mut Context) {
        match self.legs[from].read(intake, limit) {
            Ok(0) => self.read_to_end(from, context),
            Ok(count) => match intake.contents(count) {
                (bytes, None) => self.received(from, bytes, context),
                (bytes, Some(pipe)) => {
                    self.received_in_pipe(from, bytes, pipe, context);
                    intake.empty_pipe();
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.legs[from].broken.is_none() => {
                self.legs[from].readable = false;
            }
            Err(error) => {
                let end = self.legs[from].broken.map_or_else(|| end_of(&error), |broken| broken.end);
                self.leg_ended(from, end, context);
            }
        }
    }

    /// The kernel has nothing more of a leg. The error of a broken one was told before, and is not told again.
    fn read_to_end(&mut self, from: Endpoint, context: &mut Context) {
        let broken = self.legs[from].broken;
        if broken.is_none_or(|broken| broken.behind_fin) {
            self.leg_ended(from, LegEnd::Fin, context);
        }
        if let Some(broken) = broken {
            // The other leg gets what came first: the FIN.
            self.obey(context);
            self.leg_ended(from, broken.end, context);
        }
    }

    /// How much may be read from an endpoint at once. The sender of a reader that stays slow is read on while the buffer
    /// has room, since its Close frame may be the next; one that has hung up at once. Once the process holds more than its
    /// budget, a direction that is blocked is not read, one that was is read in small pieces, and the others in pieces of
    /// which little can remain.
    fn read_limit(&self, from: Endpoint, context: &Context) -> usize {
        let to = &self.legs[from.other()];
        let mut limit = self.policy.buffer_bytes;
        if let Some(spill) = &to.spill {
            if spill.read_on_at.is_some() && !self.legs[from].hung_up {
                return 0;
            }
            limit = limit.saturating_sub(spill.rest().len());
        }
        if !context.budget.is_exceeded() {
            return limit;
        }
        match &to.spill {
            Some(_) => 0,
            None if to.was_blocked => limit.min(SMALL_READ),
            None => limit.min(MODEST_READ),
        }
    }

    fn received(&mut self, from: Endpoint, bytes: &[u8], context: &mut Context) {
        let keep = self.look(from, bytes, context);
        self.write(from.other(), &bytes[..keep], context);
    }

    /// What was read stands in the pipe, too, which gives all or nothing; or filling that found the leg's end.
    #[inline(never)]
    fn received_in_pipe(&mut self, from: Endpoint, bytes: &[u8], pipe: &mut Pipe, context: &mut Context) {
        let (to, keep) = (from.other(), self.look(from, bytes, context));
        let mut lost = None;
        if keep == bytes.len() && pipe.holds(bytes) {
            self.write_by(to, bytes, context, |leg| {
                let (result, error) = leg.pour(pipe, bytes);
                lost = error;
                result
            });
        } else {
            self.write(to, &bytes[..keep], context);
        }
        if let Some(error) = lost {
            self.lose(to, &error, context);
        }
        if !pipe.is_idle() {
            self.legs[from].pause_pipe();
        }
        if let Some(error) = pipe.take_error() {
            self.lose(from, &error.into(), context);
        }
    }

    /// Looks at what was read. Says how much of it passes, behind what was held back before.
    fn look(&mut self, from: Endpoint, bytes: &[u8], context: &mut Context) -> usize {
        let passage = self.session.receive(from, bytes, context.now, self.ticket.traffic(context.index, from));
        self.write(from.other(), passage.held.as_slice(), context);
        passage.keep
    }

    fn leg_ended(&mut self, endpoint: Endpoint, end: LegEnd, context: &mut Context) {
        let leg = &mut self.legs[endpoint];
        leg.readable = false;
        leg.broken = None;
        let passage = self.session.ended(endpoint, end, context.now);
        if end != LegEnd::Fin {
            self.legs[endpoint].check_at = None;
            self.drop_spill(endpoint, context);
        }
        self.write(endpoint.other(), passage.held.as_slice(), context);
    }

    fn write(&mut self, to: Endpoint, bytes: &[u8], context: &mut Context) {
        self.write_by(to, bytes, context, |leg| leg.write(bytes));
    }

    fn write_by(
        &mut self,
        to: Endpoint,
        bytes: &[u8],
        context: &mut Context,
        write: impl FnOnce(&Leg) -> io::Result<usize>,
    ) {
        if bytes.is_empty() || self.legs[to].broken.is_some() {
            return;
        }
        if self.legs[to].spill.is_some() {
            self.spill(to, bytes, context);
            return;
        }
        match write(&self.legs[to]) {
            Ok(count) => {
                self.took(to, count, context);
                self.legs[to].was_blocked = count < bytes.len();
                if count < bytes.len() {
                    self.spill(to, &bytes[count..], context);
                }
            }
            Err(error) => self.lose(to, &error, context),
        }
    }

    /// The kernel took some bytes: soon they must be acknowledged.
    fn took(&mut self, to: Endpoint, count: usize, context: &Context) {
        self.session.written(to, count, context.now);
        let leg = &mut self.legs[to];
        if leg.check_at.is_none() {
            leg.check_at = context.patience.map(|patience| context.now + look_interval(patience));
            self.has_new_time = true;
        }
    }

    fn spill(&mut self, to: Endpoint, bytes: &[u8], context: &mut Context) {
        match &mut self.legs[to].spill {
            Some(spill) => spill.push(bytes),
            none => {
                *none = Some(Box::new(Spill::new(bytes, context.now)));
                context.blocked += 1;
                self.has_new_time = true;
            }
        }
        self.hold(to, signed(bytes.len()), context);
    }

    fn flush(&mut self, to: Endpoint, context: &mut Context) {
        let leg = &mut self.legs[to];
        let Some(mut spill) = leg.spill.take() else { return };
        let result = leg.write(spill.rest());
        let count = *result.as_ref().unwrap_or(&0);
        spill.advance(count);
        let is_empty = spill.rest().is_empty();
        leg.spill = Some(spill);
        self.hold(to, -signed(count), context);
        match result {
            Ok(count) => self.took(to, count, context),
            Err(error) => self.lose(to, &error, context),
        }
        if is_empty {
            self.drop_spill(to, context);
        }
    }

    fn drop_spill(&mut self, to: Endpoint, context: &mut Context) {
        let Some(spill) = self.legs[to].spill.take() else { return };
        self.hold(to, -signed(spill.rest().len()), context);
        let waited = context.now.saturating_duration_since(spill.since);
        self.ticket.traffic(context.index, to.other()).write_blocked(waited);
        context.blocked -= 1;
    }

    fn hold(&self, to: Endpoint, bytes: i64, context: &Context) {
        context.budget.add(bytes);
        self.ticket.traffic(context.index, to.other()).buffered(bytes);
    }

    /// A leg was found dead other than by reading it. The kernel tells that only once, so what the endpoint sent before
    /// is read out, and then the end told as it was found here.
    fn lose(&mut self, endpoint: Endpoint, error: &io::Error, context: &mut Context) {
        let end = end_of(error);
        self.session.found_dead(endpoint, context.now);
        self.drop_spill(endpoint, context);
        if !self.session.reads(endpoint) {
            self.leg_ended(endpoint, end, context);
            return;
        }
        let leg = &mut self.legs[endpoint];
        leg.broken = Some(Broken {
            end,
            behind_fin: error.kind() == io::ErrorKind::BrokenPipe,
            give_up_at: self.policy.close.and_then(|wait| context.now.checked_add(wait)),
        });
        leg.check_at = None;
        self.has_new_time = true;
        leg.readable = true;
        leg.hung_up = true;
    }

    fn check_liveness(&mut self, endpoint: Endpoint, context: &mut Context) {
        let Some(patience) = context.patience else { return };
        let leg = &mut self.legs[endpoint];
        match leg.liveness(patience, context.now) {
            Liveness::Settled => leg.check_at = None,
            Liveness::Waiting => leg.check_at = Some(context.now + look_interval(patience)),
            Liveness::Dead(error) => self.lose(endpoint, &error, context),
        }
    }

    /// Carries out what the session says. Says whether it is over.
    fn obey(&mut self, context: &mut Context) -> bool {
        while let Some(command) = self.session.poll(context.now) {
            match command {
                Command::PutClose(to, bytes) => self.write(to, &bytes, context),
                Command::Finish(to) => self.legs[to].finish(),
                Command::Reset(to) => self.reset(to, context),
                Command::Over => return true,
            }
        }
        false
    }

    /// Resets a leg, once nothing that was written can be lost by it.
    fn reset(&mut self, to: Endpoint, context: &Context) {
        let leg = &self.legs[to];
        if leg.tcp_info().is_none_or(|info| info.all_acknowledged()) {
            leg.reset_on_close();
            self.session.reset_done(to);
            self.resetting = None;
        } else {
            let since = self.resetting.map_or(context.now, |resetting| resetting.since);
            // A crash of the server leaves many of these at once, and a slow reader leaves one for long.
            let wait = ACKNOWLEDGED_POLL.max(context.now.saturating_duration_since(since) / 8);
            self.resetting = Some(Resetting { endpoint: to, since, ask_at: context.now + wait });
        }
    }
}

/// No buffer comes near the bound.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
