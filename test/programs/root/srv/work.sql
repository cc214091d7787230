-- A workload for the sqlite3 shell.
pragma journal_mode = wal;
create table item (id integer primary key, name text not null, price real, tags text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
insert into item select i, printf('item %05d', i), (i * 7919 % 10007) / 100.0, json_array(i % 7, i % 11) from n;
create index item_price on item (price, id);
create virtual table words using fts5(body);
insert into words select name || ' of ' || tags from item where id <= 500;
begin;
update item set price = price * 1.1 where id % 3 = 0;
savepoint a;
delete from item where id > 10000;
rollback to a;
commit;
select count(*), round(sum(price), 2), min(name), max(name) from item;
select id, name, round(price, 3) from item order by price desc, id limit 5;
select json_extract(tags, '$[1]') as t, count(*) from item group by t order by t;
select rowid, body from words where words match 'item AND 00042' limit 3;
select id, name, lag(id, 2) over (order by price, id) from item where id between 100 and 110 order by id;
explain query plan select * from item where price between 10 and 11 order by price;
pragma integrity_check;
pragma wal_checkpoint(truncate);
vacuum;
select count(*) from item;
.mode json
select * from item where id in (1, 2, 3);
