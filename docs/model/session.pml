/* One session, its streams on two nodes, and the Redis between them.
 *
 * Each script is one atomic step. Between the steps anything may happen that does happen: requests
 * are late or lost, replies too, cancels are published to nobody, a node dies (CRASHES), a living one
 * is taken for dead (PAUSES), Redis fails over to a replica that lags behind (FAILOVER).
 *
 *     TICKET ─► CLAIM ─► wait ─► APPEND a batch … ─► CLOSE, with the terminal frame ─► RELEASE
 *                 │                │                   │
 *                 └ OUTRUN         │                   └ FENCED: an undertaker has closed it before
 *                                  ├ FENCED: somebody newer owns the session, or it was buried
 *                                  └ REGRESSED: claim the same ticket again, send again what is lost
 *
 * What always holds is asserted where the thing happens, what holds in the end in Verdict. Each
 * mutant (M_…) takes one guard out, and `make model` wants to see it caught. See README.md.
 */

#ifndef STREAMS
#define STREAMS 3   /* questions, nearly at once: the even ones on one node, the odd on the other */
#endif
#ifndef FRAMES
#define FRAMES 3    /* of each answer; the last one is its terminal frame */
#endif
#ifndef LATE
#define LATE 2      /* how often a client gives up waiting for a reply, in the whole run */
#endif
#ifndef PAUSES
#define PAUSES 0    /* how often a lease runs out while its node lives */
#endif
#ifndef CRASHES
#define CRASHES 0   /* how many nodes die with their stream */
#endif
#if PAUSES == 0 && !defined(FAILOVER)
#define LEASES_HOLD
#endif

#define NOBODY 255
#define NODE(i) ((i) % 2)
#ifdef M_SMALL_GRAVES                  /* a log that is closed needs no undertaker, and stays a member */
#define IS_DEAD(i) (member[i] && !leased[i] && !closed[i])
#else
#define IS_DEAD(i) (member[i] && !leased[i])
#endif
#define LOST_IT(i) (owner != i && claimed >= ticket[i])
#define MAX(a, b) ((a) > (b) -> (a) : (b))

mtype = { NONE, GOOD, OUTRUN, FENCED, REGRESSED };

typedef Batch { byte first, last };     /* frames by number; first 0: none */

/* Redis: the session's keys. */
byte counter = 0;          /* the last ticket */
byte claimed = 0;          /* the newest ticket that has ever claimed */
byte owner = NOBODY;       /* whose claim it is: ticket and nonce, that is, the stream itself */
bool member[STREAMS];      /* it has claimed, and was not released */
bool released[STREAMS];
bool leased[STREAMS];      /* its lease has not run out */
byte length[STREAMS];      /* how many frames its log has */
bool closed[STREAMS];      /* whether the last is the terminal one */
bool buried[STREAMS];      /* and the undertaker's */

/* On the way: what somebody waits for, and what nobody waits for any more. */
bool claiming[STREAMS], claiming_late[STREAMS], releasing[STREAMS];
Batch appending[STREAMS], appending_late[STREAMS], closing[STREAMS], closing_late[STREAMS];
mtype reply[STREAMS] = NONE;

/* The nodes. */
byte ticket[STREAMS];
bool revoked[STREAMS];     /* the local fence has fallen, the agent is cancelled */
bool holding[STREAMS];     /* from CLAIM to RELEASE: it sends heartbeats */
bool producing[STREAMS];   /* its agent runs */
bool finished[STREAMS];    /* its whole answer was acknowledged */
bool gave_up[STREAMS];     /* its claim took too long: the question is refused */
bool crashed[STREAMS];
bool gone[STREAMS];        /* its task has ended */
byte head[2] = NOBODY;     /* each node's newest stream of the session */
byte over = 0;             /* how many have */
byte lates = 0, pauses = 0, crashes = 0;

/* What no failover takes back: the furthest time that the nodes have seen on a store's clock (a new
   primary's may be behind it), and what readers have seen. */
byte clock = 0;
byte seen[STREAMS];

#ifdef FAILOVER
bool copied = false, failed_over = false;
byte old_counter, old_claimed, old_owner;
byte old_length[STREAMS];
bool old_member[STREAMS], old_released[STREAMS], old_leased[STREAMS];
bool old_closed[STREAMS], old_buried[STREAMS];
#else
#define failed_over false
#endif

#ifdef M_WAIT_HEAD                     /* whom each found as the owner */
byte before[STREAMS] = NOBODY;
#endif
#ifdef M_LOOK_THEN_BURY                /* in two steps; a heartbeat may come between them */
bool found_dead[STREAMS];
#endif

/* The scripts */

inline publish_cancel(whom) {          /* reaches its node once, or not at all */
    if
    :: revoked[whom] = true
    :: true
    fi
}

inline claim_script(i) {
    if
    :: owner == i -> leased[i] = true; answer = GOOD
#ifdef M_SWAP                          /* whoever comes last, owns it */
    :: owner != i ->
#elif defined(M_NO_TOMBSTONE)          /* it may come after its own release */
    :: owner != i && ticket[i] > claimed ->
#else
    :: owner != i && ticket[i] > claimed && !released[i] && !closed[i] ->
#endif
        if
        :: owner != NOBODY -> publish_cancel(owner)
        :: else
        fi;
#ifdef M_WAIT_HEAD
        before[i] = owner;
#endif
        claimed = MAX(claimed, ticket[i]); owner = i; member[i] = true; leased[i] = true;
        answer = GOOD
    :: else -> answer = OUTRUN
    fi
}

/* What of a batch is not there yet. */
inline add_frames(i, batch) {
#ifdef M_TWICE
    frame = batch.first;
#else
    frame = MAX(batch.first, length[i] + 1);
#endif
    do
    :: frame <= batch.last ->
        assert(frame == length[i] + 1);                  /* no gap, and no frame twice */
        assert(!closed[i]);                              /* nothing follows a terminal frame */
        length[i] = frame; seen[i] = MAX(seen[i], frame); frame++
    :: else -> break
    od
}

#ifdef M_GAP
#define IS_AHEAD(i, batch) false
#else
#define IS_AHEAD(i, batch) (batch.first > length[i] + 1)
#endif

#if defined(M_NO_FENCE)
#define MAY_APPEND(i) true
#elif defined(M_NO_NONCE)              /* two streams with one ticket pass for one */
#define MAY_APPEND(i) (owner != NOBODY && ticket[owner] == ticket[i])
#else
#define MAY_APPEND(i) (owner == i)
#endif

inline append_script(i, batch) {
    if
    :: !MAY_APPEND(i) -> answer = (claimed < ticket[i] && !closed[i] && !released[i] -> REGRESSED : FENCED)
    :: MAY_APPEND(i) && IS_AHEAD(i, batch) -> answer = REGRESSED
    :: else ->
        assert(owner == i);                              /* nobody else appends */
        add_frames(i, batch); answer = GOOD
    fi;
    batch.first = 0; batch.last = 0; frame = 0
}

/* Once, whoever owns the session: what was said before the stream learnt of its end, and its end. */
inline close_script(i, batch) {
    if
#ifndef M_TWO_ENDS
    :: closed[i] -> answer = (buried[i] -> FENCED : GOOD)
    :: !closed[i] && released[i] -> answer = FENCED      /* bury_script vacated it */
    :: !closed[i] && !released[i] && IS_AHEAD(i, batch) -> answer = REGRESSED
#endif
    :: else ->
        add_frames(i, batch); closed[i] = true;
        owner = (owner == i -> NOBODY : owner); answer = GOOD
    fi;
    batch.first = 0; batch.last = 0; frame = 0
}

inline release_script(i) {
    released[i] = true; member[i] = false; leased[i] = false;
#ifdef M_RELEASE_ANY
    owner = NOBODY;
#else
    owner = (owner == i -> NOBODY : owner);
#endif
    releasing[i] = false
}

/* The undertaker, on any node: has found the lease expired, and writes `interrupted`. It vacates a stream
 * without frames: it releases it and leaves its log empty, so that its stream_id can be started again. */
inline bury_script(i) {
    assert(!leased[i]);
    assert(!holding[i] || pauses > 0);                   /* nobody is buried alive but after a pause */
    assert(closed[i] || seen[i] == length[i] || failed_over);    /* its cursor names no other frame */
    if
    :: !closed[i] && length[i] > 0 -> length[i]++; buried[i] = true; seen[i] = MAX(seen[i], length[i])
    :: else
    fi;
#ifndef M_OPEN_GRAVE                   /* the dead may wake, and must find that all is over */
    closed[i] = (length[i] > 0); released[i] = true; owner = (owner == i -> NOBODY : owner);
#endif
    member[i] = false
#ifdef M_EPOCHS_EXPIRE                 /* what orders the streams is gone with the lease */
    ; claimed = 0
#endif
}

/* Executes what waits for stream i, in any order, at any time. */
proctype Redis(byte i) {
    mtype answer; byte frame;
end:
    do
    :: atomic { claiming[i] -> claiming[i] = false; claim_script(i); reply[i] = answer; answer = NONE }
    :: atomic { claiming_late[i] -> claiming_late[i] = false; claim_script(i); answer = NONE }
    :: atomic { appending[i].first > 0 -> append_script(i, appending[i]); reply[i] = answer; answer = NONE }
    :: atomic { appending_late[i].first > 0 -> append_script(i, appending_late[i]); answer = NONE }
    :: atomic { closing[i].first > 0 -> close_script(i, closing[i]); reply[i] = answer; answer = NONE }
    :: atomic { closing_late[i].first > 0 -> close_script(i, closing_late[i]); answer = NONE }
    :: atomic { claiming_late[i] -> claiming_late[i] = false }    /* it got lost, as may the next two */
    :: atomic { appending_late[i].first > 0 -> appending_late[i].first = 0; appending_late[i].last = 0 }
    :: atomic { closing_late[i].first > 0 -> closing_late[i].first = 0; closing_late[i].last = 0 }
    :: atomic { releasing[i] -> release_script(i) }
    /* HEARTBEAT: renews the lease, and tells an owner that it is none any more. */
    :: atomic { holding[i] && member[i] && !leased[i] -> leased[i] = true }
#ifndef M_NO_HEARTBEAT
    :: atomic { holding[i] && LOST_IT(i) && !revoked[i] -> revoked[i] = true }
#endif
    /* Leases run out. */
    :: atomic { leased[i] && (crashed[i] || (failed_over && gone[i] && !releasing[i])) -> leased[i] = false }
    :: atomic { leased[i] && holding[i] && pauses < PAUSES -> pauses++; leased[i] = false }
#if defined(M_LOOK_THEN_BURY)
    :: atomic { IS_DEAD(i) && !found_dead[i] -> found_dead[i] = true }
    :: atomic { member[i] && found_dead[i] -> found_dead[i] = false; bury_script(i) }
#elif !defined(M_NO_UNDERTAKER)
    :: atomic { IS_DEAD(i) -> bury_script(i) }
#endif
    od
}

#ifdef M_WAIT_HEAD
#define MAY_BEGIN(i) (before[i] == NOBODY || !member[before[i]])
#else
#define MAY_BEGIN(i) (!OLDER(i, 0, member) && !OLDER(i, 1, member) && !OLDER(i, STREAMS - 1, member))
#endif
#define OLDER(i, other, has) ((other) != (i) && ticket[other] < ticket[i] && has[other])
#define OLDER_PRODUCES(i) (OLDER(i, 0, producing) || OLDER(i, 1, producing) || OLDER(i, STREAMS - 1, producing))
#define SHARES(i, other) ((other) != (i) && ticket[other] == ticket[i])

inline take_ticket(i) {
#ifdef M_NO_CLOCK                      /* only what a failover takes back */
    counter = MAX(counter, claimed) + 1;
#else
    counter = MAX(MAX(counter, claimed) + 1, clock);
#endif
    ticket[i] = counter; clock = MAX(clock, counter + 1);
#ifndef SAME_TICKETS                   /* no cursor names two frames */
    assert(!SHARES(i, 0) && !SHARES(i, 1) && !SHARES(i, STREAMS - 1))
#endif
}

inline become_head(i) {
    if
    :: head[NODE(i)] != NOBODY -> revoked[head[NODE(i)]] = true
    :: else
    fi;
    head[NODE(i)] = i
}

/* Nobody waits for the request any more, but it may still arrive. */
inline late_claim(i) {
    lates++; claiming_late[i] = claiming[i]; claiming[i] = false; reply[i] = NONE
}
inline late(batch, batch_late) {
    lates++; reply[i] = NONE;
    batch_late.first = batch.first; batch_late.last = batch.last;
    batch.first = 0; batch.last = 0
}

#define MAY_CRASH(i) (crashes < CRASHES)

proctype Stream(byte i) {
    byte made = 0, acked = 0;
#ifdef M_LOCAL_ORDER                   /* two questions on one node may swap their tickets */
    atomic { become_head(i) }
    atomic { take_ticket(i) }
#else
    atomic { become_head(i); take_ticket(i) }
#endif

claim:
    if
    :: atomic { revoked[i] -> goto out }
    :: atomic { !revoked[i] -> claiming[i] = true }
    fi;
    if
    :: atomic { reply[i] == GOOD -> reply[i] = NONE; holding[i] = true }
    :: atomic { reply[i] == OUTRUN -> reply[i] = NONE; goto out }
    :: atomic { lates < LATE -> late_claim(i);
        if
        :: goto claim
        :: gave_up[i] = true; goto out
        fi }
    :: atomic { failed_over && !claiming[i] && reply[i] == NONE -> goto claim }
    fi;
    if
    :: atomic { made > 0 -> goto say } /* it was a claim after REGRESSED */
    :: atomic { made == 0 }
    fi;

    if                                 /* wait for every older stream, not only for the last owner */
    :: atomic { MAY_BEGIN(i) ->
#ifdef LEASES_HOLD
        assert(!OLDER_PRODUCES(i));
#endif
        producing[i] = true }
    :: atomic { producing[i] = true }  /* ... within the bound of 2 s */
    :: atomic { revoked[i] -> goto close }
    :: atomic { MAY_CRASH(i) -> goto crash }
    fi;

say:
    do
    :: atomic { acked == FRAMES - 1 -> break }
    /* Stream 0 hears no cancel: the fence has to hold without it. */
    :: atomic { acked < FRAMES - 1 && (!revoked[i] || i == 0) ->
        if
        :: made <= acked -> made = acked + 1
        :: made > acked && made < FRAMES - 1 -> made++   /* batches grow while one is on its way */
        :: made > acked
        fi;
        appending[i].first = acked + 1; appending[i].last = made }
        if
        :: atomic { reply[i] == GOOD -> reply[i] = NONE; acked = made }
        :: atomic { reply[i] == FENCED -> reply[i] = NONE; revoked[i] = true; break }
        :: atomic { reply[i] == REGRESSED -> reply[i] = NONE; acked = length[i];
            if
            :: revoked[i] -> break
            :: else -> goto claim
            fi }
        :: atomic { lates < LATE && appending_late[i].first == 0 -> late(appending[i], appending_late[i]) }
        :: atomic { failed_over && appending[i].first == 0 && reply[i] == NONE }
        :: atomic { MAY_CRASH(i) -> goto crash }
        fi
    :: atomic { revoked[i] -> break }
    /* The agent may fall silent: then the heartbeat alone tells. */
    :: atomic { acked < FRAMES - 1 && !revoked[i] && LOST_IT(i) -> (revoked[i] || !LOST_IT(i)) }
    od;

close:
    do
    :: atomic { closing[i].first = acked + 1; closing[i].last = made + 1 }
        if
        :: atomic { reply[i] == GOOD -> reply[i] = NONE; finished[i] = (made == FRAMES - 1); break }
        :: atomic { reply[i] == FENCED -> reply[i] = NONE; break }
        :: atomic { reply[i] == REGRESSED -> reply[i] = NONE; acked = length[i] }
        :: atomic { lates < LATE && closing_late[i].first == 0 -> late(closing[i], closing_late[i]) }
        :: atomic { failed_over && closing[i].first == 0 && reply[i] == NONE }
        :: atomic { MAY_CRASH(i) -> goto crash }
        fi
    od;
    if
    :: true
    :: atomic { MAY_CRASH(i) -> goto crash }
    fi;

out:
    atomic {
        producing[i] = false; holding[i] = false; releasing[i] = true;
        head[NODE(i)] = (head[NODE(i)] == i -> NOBODY : head[NODE(i)]);
        gone[i] = true; over++; goto end
    };
crash:
    atomic {
        crashes++; crashed[i] = true; producing[i] = false; holding[i] = false; reply[i] = NONE;
        head[NODE(i)] = (head[NODE(i)] == i -> NOBODY : head[NODE(i)]);
        gone[i] = true; over++
    };
end: skip
}

#ifdef FAILOVER
proctype Failover() {
    byte i;
    if
    :: atomic { copied = true;
        old_counter = counter; old_claimed = claimed; old_owner = owner;
        for (i : 0 .. STREAMS - 1) {
            old_member[i] = member[i]; old_released[i] = released[i]; old_leased[i] = leased[i];
            old_length[i] = length[i]; old_closed[i] = closed[i]; old_buried[i] = buried[i]
        };
        i = 0 }
        if
        :: atomic { failed_over = true;
            counter = old_counter; claimed = old_claimed; owner = old_owner;
            for (i : 0 .. STREAMS - 1) {
                member[i] = old_member[i]; released[i] = old_released[i];
                length[i] = old_length[i]; closed[i] = old_closed[i]; buried[i] = old_buried[i];
#ifdef M_HASTY                         /* the renewals are lost too, and nobody waits for new ones */
                leased[i] = false;
#else
                leased[i] = old_leased[i];
#endif
                claiming[i] = false; releasing[i] = false;
                appending[i].first = 0; appending[i].last = 0;
                closing[i].first = 0; closing[i].last = 0
            };
            i = 0 }
        :: true
        fi
    :: true
    fi
}
#endif

/* When nothing can happen any more. */
proctype Verdict() {
    byte i, last;
    atomic {
        timeout;
        assert(over == STREAMS);       /* everything ends */
        for (i : 0 .. STREAMS - 1) {
            if
            :: ticket[i] > ticket[last] -> last = i
            :: else
            fi;
            assert(!member[i]);        /* nothing is left */
#ifndef FAILOVER                       /* which may take back what only Redis knew */
            assert(length[i] == 0 || closed[i]);         /* every reader sees an end */
            assert(!finished[i] || (closed[i] && !buried[i] && length[i] == FRAMES))
#endif
        };
        assert(owner == NOBODY);
#if CRASHES == 0 && PAUSES == 0 && !defined(SAME_TICKETS)
        assert(finished[last] || gave_up[last])            /* the newest question is answered */
#endif
    }
}

init {
    byte i;
    atomic {
        for (i : 0 .. STREAMS - 1) {
            run Redis(i); run Stream(i)
        };
#ifdef FAILOVER
        run Failover();
#endif
        run Verdict()
    }
}
