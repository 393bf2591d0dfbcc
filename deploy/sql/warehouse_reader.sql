-- The insurer's warehouse: a role that may read the one table of the claims use case, and nothing
-- else. Run by psql in the warehouse's database, as a superuser, or as the owner of the table who
-- may create roles:
--   ML_ASSETS_READER_PASSWORD=… psql -d insurance -f warehouse_reader.sql
-- Run it again to change the password. If the table holds more than the platform needs, give it a
-- view of the same name instead. psql 14 or newer.
\set ON_ERROR_STOP 1
\getenv reader_password ML_ASSETS_READER_PASSWORD

SELECT 'CREATE ROLE ml_assets_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 10'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ml_assets_reader')
\gexec
ALTER ROLE ml_assets_reader PASSWORD :'reader_password';

GRANT CONNECT ON DATABASE :"DBNAME" TO ml_assets_reader;
GRANT USAGE ON SCHEMA claims TO ml_assets_reader;
GRANT SELECT ON claims.ds_dataset TO ml_assets_reader;

-- A second door, should a grant to PUBLIC open the first.
ALTER ROLE ml_assets_reader SET default_transaction_read_only = on;
ALTER ROLE ml_assets_reader SET statement_timeout = '15min';
ALTER ROLE ml_assets_reader SET idle_in_transaction_session_timeout = '5min';
