# What is another name in pgx 4, for worker.go and worker_util.go.
s,github.com/jackc/pgx/v5/pgconn,github.com/jackc/pgconn,
s,github.com/jackc/pgx/v5,github.com/jackc/pgx/v4,
s/pgx.BeginFunc(ctx, conn, /conn.BeginFunc(ctx, /
s/default_query_exec_mode=cache_describe/statement_cache_mode=describe/
