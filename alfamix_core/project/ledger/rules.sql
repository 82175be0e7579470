-- The project's rules, one view each. Tables: samples, events, questions, quarantine, corrections, and one row of
-- parameters: now, answers, agreement, max_answers, expires_after, accept_unasked, audit_share, seed.
-- tests/twin states the same rules as plain loops.

-- A withdrawn sample leaves everything, permanently.
create view withdrawn as
    select distinct sample_id from corrections where kind = 'withdrawn';

-- A sample that a round could not read is in quarantine until a release names that round or a later one.
create view quarantined as
    select unreadable.sample_id
    from (select sample_id, max(round) as round from quarantine group by sample_id) as unreadable
    left join (select sample_id, max(round) as round from corrections where kind = 'released' group by sample_id) as back
        using (sample_id)
    where back.round is null or back.round < unreadable.round;

-- The newest of a sample's questions counts.
create view latest_questions as
    select * from questions
    qualify row_number() over (partition by sample_id order by round desc, rank desc) = 1;

-- The audit reserve is a share of the train split, by a hash of the id; a question keeps its sample on its side.
create view placed as
    select
        samples.sample_id, samples.uri, samples.label as manifest_label, samples."group",
        samples.load,
        case
            when samples.split <> 'train' then samples.split
            when asked.sample_id is not null then if(asked.audit, 'audit', 'train')
            when parameters.audit_share > 0
                and ('0x' || left(sha256('audit/' || parameters.seed || '/' || samples.sample_id), 12))::ubigint::double
                    / 281474976710656 < parameters.audit_share then 'audit'
            else 'train'
        end as split,
        asked.asked_at
    from samples
    cross join parameters
    left join latest_questions as asked using (sample_id)
    anti join withdrawn using (sample_id);

-- An unasked answer cannot decide a test or audit sample; the project's settings say whether it decides others.
create view answerable as
    select sample_id
    from placed
    cross join parameters
    where asked_at is not null or (accept_unasked and split in ('train', 'val'));

-- An annotator's last event about a sample counts; an event from the future counts as of its load.
create view last_events as
    select * from events
    qualify row_number() over (
        partition by sample_id, annotator
        order by least(time, loaded_at) desc, time desc, event_id desc, kind desc, coalesce(label, '') desc, round desc
    ) = 1;

-- A withdrawal removes the answer.
create view standing_answers as
    select sample_id, annotator, kind, label, round
    from last_events semi join answerable using (sample_id)
    where kind <> 'withdraw';

-- The verdict of a sample's standing answers: decided by a majority, or by queue.agreement equal answers that are more
-- than any other; disputed at queue.max_answers; open until then.
create view verdicts as
    with votes as (
        select sample_id, kind, label, count(*) as votes, max(round) as round
        from standing_answers group by sample_id, kind, label
    ),
    tallies as (
        select
            sample_id, sum(votes) as answers, max(votes) as most, arg_max(struct_pack(kind, label, round), votes) as top,
            max(votes, 2)[2] as second
        from votes group by sample_id
    )
    select
        sample_id,
        case
            when tallies.answers < parameters.answers then 'open'
            when parameters.agreement > 0 and most >= parameters.agreement and most > coalesce(second, 0) then top.kind
            when parameters.agreement = 0 and 2 * most > tallies.answers then top.kind
            when tallies.answers >= parameters.max_answers then 'disputed'
            else 'open'
        end as verdict,
        top.label as label,
        top.round as round
    from tallies
    cross join parameters;

-- The label of each sample. A decided answer overrides the manifest's label.
create view known as
    select
        placed.*,
        coalesce(verdict, 'open') as verdict,
        case coalesce(verdict, 'open')
            when 'label' then verdicts.label
            when 'open' then manifest_label
        end as label,
        if(verdict = 'label', verdicts.round, 0) as label_round,
        quarantined.sample_id is not null as unreadable
    from placed
    left join verdicts using (sample_id)
    left join quarantined using (sample_id);

-- One state per sample: the first that fits. A query is open until its sample has a label or verdict, cannot be read, or
-- the question expires.
create view states as
    select
        known.*,
        case
            when unreadable then 'quarantined'
            when label is not null then 'labelled'
            when verdict in ('skip', 'cannot_label') then 'skipped'
            when verdict = 'disputed' then 'disputed'
            when asked_at > now - expires_after then 'queried'
            when split = 'train' then 'pool'
            when split = 'audit' then 'reserve'
            else 'held_out'
        end as state
    from known
    cross join parameters;

create view open_queries as
    select latest_questions.*
    from latest_questions
    semi join (select sample_id from states where state = 'queried') using (sample_id);

-- The last reading of an inbox file says whether it is loaded or set aside.
create view inbox_files as
    select * from inbox where line = 0
    qualify row_number() over (partition by key order by load desc) = 1;
