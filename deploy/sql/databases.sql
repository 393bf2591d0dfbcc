-- The platform's own PostgreSQL: a database and a role each for Dagster and MLflow, who cannot see
-- one another's. Run by psql as a superuser; the passwords come from environment variables, so that
-- they stand in no file and in no list of processes:
--   DAGSTER_DB_PASSWORD=… MLFLOW_DB_PASSWORD=… psql -f databases.sql
-- Run it again to change the passwords. (compose.yaml runs it once, when the volume is empty.)
-- psql 14 or newer.
\set ON_ERROR_STOP 1
\getenv dagster_password DAGSTER_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', name)
FROM unnest(ARRAY['dagster', 'mlflow']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE dagster PASSWORD :'dagster_password';
ALTER ROLE mlflow PASSWORD :'mlflow_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, name)
FROM unnest(ARRAY['dagster', 'mlflow']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

-- By default everybody may connect to every database.
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
REVOKE ALL ON DATABASE mlflow FROM PUBLIC;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
