-- What the compose profile `cluster` asks of a new PostgreSQL. The service's role is no superuser, so that
-- row-level security holds for it; the extension takes one to make.
\getenv password POSTGRES_PASSWORD
CREATE ROLE sayso LOGIN PASSWORD :'password';
CREATE DATABASE sayso OWNER sayso;
\connect sayso
CREATE EXTENSION vector;
