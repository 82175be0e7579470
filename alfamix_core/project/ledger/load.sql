-- The rows of a load: from the rows of new and changed inbox files (…_read) those that the tables (…_table) do not have
-- yet (…_fresh), and the outcome of each line. The table loading holds the moment, changed the keys of files that were
-- read before.

-- Samples: the first line with an id is the sample. The same id with the same uri is a repetition, with another
-- uri it is set aside.
create temp table twice as
    select sample_id from samples_read
    -- numbers take a fraction of the memory and time that ids take
    where hash(sample_id) in (select hash(sample_id) from samples_read group by all having count(*) > 1)
    group by sample_id having count(*) > 1;

create temp view samples_first as
    select * from samples_read anti join twice using (sample_id)
    union all
    select samples_read.* from samples_read join twice using (sample_id)
    qualify row_number() over (partition by sample_id order by key, line) = 1;

create temp view samples_fresh as
    select samples_first.* from samples_first anti join samples_table using (sample_id);

create temp view other_uri as
    with suspects as (
        select samples_read.*, samples_table.uri as known_uri, samples_table.key as known_key
        from samples_read join samples_table using (sample_id)
        union all
        select samples_read.*, samples_first.uri, samples_first.key
        from samples_read
        join twice using (sample_id)
        join samples_first using (sample_id)
        anti join samples_table using (sample_id)
    )
    select key, line, sample_id, uri, known_uri, known_key from suspects where uri <> known_uri;

-- Events: equal events are one, from whatever file.
create temp view events_fresh as
    with first as (
        select * from events_read
        qualify row_number() over (
            partition by event_id, sample_id, kind, label, annotator, round, time order by key, line
        ) = 1
    )
    select first.event_id, first.sample_id, first.kind, first.label, first.annotator, first.round, first.time,
        loading.loaded_at, first.key, first.line
    from first
    cross join loading
    where not exists (
        select 1 from events_table as old
        where old.event_id = first.event_id and old.sample_id = first.sample_id and old.kind = first.kind
            and old.label is not distinct from first.label and old.annotator = first.annotator
            and old.round = first.round and old.time = first.time
    );

create temp view corrections_fresh as
    with first as (
        select * from corrections_read
        qualify row_number() over (partition by kind, sample_id, round, reason, time order by key, line) = 1
    )
    select first.* from first
    where not exists (
        select 1 from corrections_table as old
        where old.kind = first.kind and old.sample_id = first.sample_id and old.round = first.round
            and old.reason = first.reason and old.time = first.time
    );

-- Questions and quarantine come from the objects of committed rounds, each round once.
create temp view questions_fresh as
    select questions_read.* from questions_read
    where not exists (select 1 from questions_table as old where old.round = questions_read.round);

create temp view quarantine_fresh as
    select quarantine_read.* from quarantine_read
    where not exists (select 1 from quarantine_table as old where old.round = quarantine_read.round);

-- Rows loaded from a changed file that it no longer holds.
create temp view vanished as
    select key, count(*) as vanished
    from (
        select key from samples_table as old
        where old.key in (select key from changed) and not exists (
            select 1 from samples_read as now
            where now.key = old.key and now.sample_id = old.sample_id and now.uri = old.uri and now.split = old.split
                and now.label is not distinct from old.label and now."group" is not distinct from old."group"
        )
        union all
        select key from events_table as old
        where old.key in (select key from changed) and not exists (
            select 1 from events_read as now
            where now.key = old.key and now.event_id = old.event_id and now.sample_id = old.sample_id
                and now.kind = old.kind and now.label is not distinct from old.label
                and now.annotator = old.annotator and now.round = old.round and now.time = old.time
        )
        union all
        select key from corrections_table as old
        where old.key in (select key from changed) and not exists (
            select 1 from corrections_read as now
            where now.key = old.key and now.kind = old.kind and now.sample_id = old.sample_id
                and now.round = old.round and now.reason = old.reason and now.time = old.time
        )
    )
    group by key;
