#!/usr/bin/python3
"""Lints the install and update scripts of the extension.

    script_lint.py [--sharedir DIR] SCRIPT...
    script_lint.py --self-test

A script runs as a superuser in a database where others may have created
objects, so the rules are about names that could resolve to such an object
(CVE-2018-1058), objects that could be adopted (CVE-2022-2625), functions that
could be called by the wrong role, and objects that nobody explained.

Operators are not looked at: they resolve when the object is created, under the
search_path that the script must pin in its first statement, which holds
pg_catalog and, last, pg_temp; PostgreSQL never looks for operators or functions
in pg_temp.  For functions whose body is kept as text, hence resolved on every
call, a pinned search_path of their own is demanded instead.

--self-test breaks a good script in one way for each rule and fails if a rule
does not notice.
"""

import argparse
import os
import re
import subprocess
import sys
from collections import namedtuple

from pglast import ast, enums, parse_plpgsql, parse_sql, scan
from pglast.parser import ParseError
from pglast.visitors import Visitor

# What @extschema@ is replaced with before parsing.
EXTSCHEMA = 'qml_extschema'

# Schemas that nobody but the extension's owner can create objects in, if the
# script creates qml itself.
SAFE_PATH = {'pg_catalog', 'qml', EXTSCHEMA, 'pg_temp'}

Finding = namedtuple('Finding', 'rule line message')

ALLOWED_STATEMENTS = (
    ast.AlterSeqStmt, ast.AlterTableStmt, ast.CommentStmt, ast.CompositeTypeStmt,
    ast.CreateDomainStmt, ast.CreateEnumStmt, ast.CreateFunctionStmt, ast.CreateSchemaStmt,
    ast.CreateSeqStmt, ast.CreateStmt, ast.CreateTrigStmt, ast.GrantStmt, ast.IndexStmt,
    ast.InsertStmt, ast.SelectStmt, ast.VariableSetStmt, ast.ViewStmt)

# Only update scripts need these.
UPDATE_STATEMENTS = (
    ast.AlterFunctionStmt, ast.AlterEnumStmt, ast.DeleteStmt, ast.DropStmt, ast.RenameStmt,
    ast.UpdateStmt, ast.AlterObjectSchemaStmt)


# Names ---------------------------------------------------------------------

def strings(nodes):
    return [n.sval for n in nodes or () if isinstance(n, ast.String)]


def type_key(type_name):
    """A type as a comparable text: "int" and "pg_catalog.int4" are the same."""
    names = strings(type_name.names)
    if names[:1] == ['pg_catalog']:
        names = names[1:]
    names = [{'int': 'int4', 'bigint': 'int8', 'boolean': 'bool'}.get(n, n) for n in names]
    return '.'.join(names) + '[]' * len(type_name.arrayBounds or ())


def parameter_keys(parameters, with_output):
    mode = enums.FunctionParameterMode
    skipped = {mode.FUNC_PARAM_TABLE}
    if not with_output:
        skipped.add(mode.FUNC_PARAM_OUT)
    return tuple(type_key(p.argType) for p in parameters or () if p.mode not in skipped)


def function_keys(stmt):
    """The ways in which another statement may name this function."""
    name = '.'.join(strings(stmt.funcname))
    return {(name, parameter_keys(stmt.parameters, False)),
            (name, parameter_keys(stmt.parameters, True)), (name, None)}


def object_key(obj):
    """An ObjectWithArgs as one of function_keys()."""
    name = '.'.join(strings(obj.objname))
    if obj.args_unspecified:
        return (name, None)
    return (name, tuple(type_key(t) for t in obj.objargs or ()))


def range_name(rel):
    return f'{rel.schemaname}.{rel.relname}' if rel.schemaname else rel.relname


def option(stmt, name):
    for elem in stmt.options or ():
        if elem.defname == name:
            return elem
    return None


class Builtins:
    """Names in pg_catalog, read from the files that initdb makes it from."""

    def __init__(self, sharedir):
        self.functions, self.types, self.relations = set(), set(), set()
        kinds = {'pg_proc': self.functions, 'pg_type': self.types, 'pg_class': self.relations}
        current = None
        with open(os.path.join(sharedir, 'postgres.bki'), encoding='utf-8') as bki:
            for line in bki:
                word = line.split()
                if word[:1] == ['create'] and len(word) > 2:
                    current = kinds.get(word[1])
                    self.relations.add(word[1])
                elif word[:2] == ['insert', '('] and current is not None:
                    current.add(word[3].strip('"\''))
        with open(os.path.join(sharedir, 'system_views.sql'), encoding='utf-8') as views:
            self.relations.update(re.findall(r'^CREATE VIEW (pg_\w+)', views.read(), re.M))
        # Every relation is a type too, and any type has an array.
        self.types |= self.relations


# References inside a statement ---------------------------------------------

class References(Visitor):
    """Collects names without a schema that are not pg_catalog's."""

    REG_TYPES = {'regclass', 'regproc', 'regprocedure', 'regtype'}
    NAME_FUNCTIONS = {'nextval', 'setval', 'currval', 'pg_extension_config_dump',
                      'pg_get_serial_sequence'}

    def __init__(self, builtins, ctes):
        super().__init__()
        self.builtins, self.ctes, self.found = builtins, ctes, []

    def bad(self, what, name):
        self.found.append(f'{what} "{name}" has no schema and is not in pg_catalog')

    def visit_RangeVar(self, _, node):
        if node.schemaname is None and node.relname not in self.ctes \
                and node.relname not in self.builtins.relations:
            self.bad('relation', node.relname)

    def visit_TypeName(self, _, node):
        names = strings(node.names)
        if len(names) == 1 and names[0] not in self.builtins.types:
            self.bad('type', names[0])

    def visit_FuncCall(self, _, node):
        names = strings(node.funcname)
        if len(names) == 1 and names[0] not in self.builtins.functions:
            self.bad('function', names[0])
        if names[-1] in self.NAME_FUNCTIONS and node.args:
            self.name_literal(node.args[0])

    def visit_TypeCast(self, _, node):
        if strings(node.typeName.names)[-1] in self.REG_TYPES:
            self.name_literal(node.arg)

    def name_literal(self, node):
        if isinstance(node, ast.TypeCast):
            node = node.arg
        if isinstance(node, ast.A_Const) and isinstance(node.val, ast.String):
            name = node.val.sval
            if '.' not in name and name not in self.builtins.relations \
                    and name not in self.builtins.functions:
                self.bad('name literal', name)


class CteNames(Visitor):
    def __init__(self):
        super().__init__()
        self.names = set()

    def visit_CommonTableExpr(self, _, node):
        self.names.add(node.ctename)


def unqualified(stmt, builtins):
    ctes = CteNames()
    ctes(stmt)
    refs = References(builtins, ctes.names)
    refs(stmt)
    return refs.found


# The lint ------------------------------------------------------------------

class Lint:
    def __init__(self, text, builtins, is_update=False):
        self.builtins, self.is_update = builtins, is_update
        self.findings = []
        self.line = 1
        self.functions = []             # (display name, keys, line)
        self.dropped = set()
        self.revoked, self.revoked_schemas = set(), []
        self.needs_comment = []         # (kind, key or set of keys, line)
        self.comments = set()           # (kind, key)
        self.run(text)

    def report(self, rule, message, line=None):
        self.findings.append(Finding(rule, line or self.line, message))

    def run(self, text):
        sql = self.check_frame(text)
        self.check_quoted_extschema(sql)
        try:
            raw = parse_sql(sql)
        except ParseError as error:
            self.report('syntax', str(error))
            return
        for number, item in enumerate(raw):
            # Offsets count bytes; skip the blanks and comments in front.
            start = item.stmt_location
            head = sql.encode()[:start].decode()
            rest = sql.encode()[start:].decode()
            gap = re.match(r'(\s|--[^\n]*\n|/\*.*?\*/)*', rest, re.S).group()
            self.line = (head + gap).count('\n') + 1
            self.check_statement(item.stmt, number)
        if not raw:
            self.report('search-path-first', 'the script is empty')
        self.check_revokes()
        self.check_comments()

    def check_frame(self, text):
        """The guard against psql; returns the script as SQL, line by line."""
        lines = text.split('\n')
        code = [n for n, l in enumerate(lines) if l.strip() and not l.startswith('--')]
        first = code[0] if code else 0
        if not re.match(r'\\echo .*\\quit$', lines[first]):
            self.report('guard', 'the first line is not "\\echo ... \\quit"', first + 1)
        for n in code[1:]:
            if lines[n].startswith('\\'):
                self.report('guard', 'psql command in the script', n + 1)
        lines = ['' if l.startswith('\\') else l for l in lines]
        return '\n'.join(lines).replace('@extschema@', EXTSCHEMA)

    def check_quoted_extschema(self, sql):
        """A schema's name substituted inside quotes could end them (CVE-2023-39417)."""
        data = sql.encode()
        try:
            tokens = scan(sql)
        except ParseError:
            return                      # reported by parse_sql
        for token in tokens:
            piece = data[token.start:token.end + 1].decode()
            quoted = token.name in ('SCONST', 'USCONST') or piece.startswith(('"', 'U&"'))
            if quoted and (EXTSCHEMA in piece or '@ext' in piece):
                self.report('quoted-extschema', '@extschema@ or @extowner@ inside quotes',
                            data[:token.start].decode().count('\n') + 1)

    # One statement

    def check_statement(self, stmt, number):
        if number == 0:
            self.check_first(stmt)
        elif isinstance(stmt, ast.VariableSetStmt):
            self.report('search-path-first', 'SET after the first statement')
        allowed = ALLOWED_STATEMENTS + (UPDATE_STATEMENTS if self.is_update else ())
        drops_own = self.drops_own(stmt)
        if isinstance(stmt, (ast.CreateRoleStmt, ast.GrantRoleStmt, ast.AlterRoleStmt)):
            self.report('role', 'roles are not members of an extension; do not touch them')
        elif not isinstance(stmt, allowed) and not drops_own:
            self.report('statement', f'{type(stmt).__name__} is not expected in a script')
        self.check_plain_create(stmt)
        for message in unqualified(stmt, self.builtins):
            # What is being created has a rule of its own.
            self.report('unqualified', message)

        handler = getattr(self, 'on_' + type(stmt).__name__, None)
        if handler:
            handler(stmt)

    def drops_own(self, stmt):
        """Nobody sees a function that is gone when the script ends."""
        if not isinstance(stmt, ast.DropStmt) or stmt.missing_ok \
                or stmt.removeType != enums.ObjectType.OBJECT_FUNCTION \
                or stmt.behavior != enums.DropBehavior.DROP_RESTRICT:
            return False
        dropped = {object_key(o) for o in stmt.objects}
        self.dropped |= dropped
        return all(any(key in keys for _, keys, _ in self.functions) for key in dropped)

    def check_first(self, stmt):
        if not (isinstance(stmt, ast.VariableSetStmt) and stmt.is_local
                and stmt.name == 'search_path'
                and [a.val.sval for a in stmt.args or ()] == ['pg_catalog', 'pg_temp']):
            self.report('search-path-first', 'the first statement is not '
                        '"SET LOCAL search_path = pg_catalog, pg_temp"')

    def check_plain_create(self, stmt):
        if getattr(stmt, 'if_not_exists', False):
            self.report('plain-create', 'IF NOT EXISTS would adopt an object of somebody else')
        if getattr(stmt, 'replace', False) and not (
                self.is_update and isinstance(stmt, ast.CreateFunctionStmt)):
            self.report('plain-create', 'OR REPLACE would adopt an object of somebody else')

    def creates(self, kind, name):
        if '.' not in name:
            self.report('qualified-create', f'{kind} "{name}" is created without a schema')
        self.needs_comment.append((kind, {name}, self.line))

    def on_CreateSchemaStmt(self, stmt):
        self.needs_comment.append(('schema', {stmt.schemaname}, self.line))
        if stmt.schemaElts:
            self.report('statement', 'CREATE SCHEMA with elements')

    def on_CreateStmt(self, stmt):
        name = range_name(stmt.relation)
        self.creates('table', name)
        for elt in stmt.tableElts or ():
            if isinstance(elt, ast.ColumnDef) and elt.typeName is not None:
                self.needs_comment.append(('column', {f'{name}.{elt.colname}'}, self.line))
            elif isinstance(elt, ast.TableLikeClause) and not self.copies_own(elt):
                self.report('star', 'LIKE hides columns: name them, or copy a table of the '
                            'script with its comments')

    def copies_own(self, like):
        """The columns of a table that the script has made are named there."""
        comments = like.options & enums.TableLikeOption.CREATE_TABLE_LIKE_COMMENTS
        own = [names for kind, names, _ in self.needs_comment if kind == 'table']
        return bool(comments) and {range_name(like.relation)} in own

    def on_ViewStmt(self, stmt):
        name = range_name(stmt.view)
        self.creates('view', name)
        query = stmt.query
        while query.larg is not None:
            query = query.larg
        columns = strings(stmt.aliases) or [self.column_name(t) for t in query.targetList or ()]
        for column in columns:
            self.needs_comment.append(('column', {f'{name}.{column}'}, self.line))

    def column_name(self, target):
        """The name that PostgreSQL gives to a column of a view."""
        if target.name is not None:
            return target.name
        value = target.val
        if isinstance(value, ast.ColumnRef) and isinstance(value.fields[-1], ast.A_Star):
            self.report('star', '* hides columns: name them')
            return '*'
        if isinstance(value, ast.ColumnRef):
            return strings(value.fields)[-1]
        if isinstance(value, ast.A_Indirection) and isinstance(value.indirection[-1], ast.String):
            return value.indirection[-1].sval
        self.report('star', 'give the expression a name with AS')
        return '?'

    def on_CreateEnumStmt(self, stmt):
        self.creates('type', '.'.join(strings(stmt.typeName)))

    def on_CompositeTypeStmt(self, stmt):
        self.creates('type', range_name(stmt.typevar))

    def on_CreateDomainStmt(self, stmt):
        self.creates('type', '.'.join(strings(stmt.domainname)))

    def on_CreateSeqStmt(self, stmt):
        self.creates('sequence', range_name(stmt.sequence))

    def on_CreateFunctionStmt(self, stmt):
        name = '.'.join(strings(stmt.funcname))
        if '.' not in name:
            self.report('qualified-create', f'function "{name}" is created without a schema')
        keys = function_keys(stmt)
        self.functions.append((name, keys, self.line))
        self.needs_comment.append(('function', keys, self.line))
        self.check_internal(stmt, name)
        self.check_function_path(stmt, name)

    def check_internal(self, stmt, name):
        """A caller could pass such a function any pointer."""
        types = [p.argType for p in stmt.parameters or ()]
        if stmt.returnType is not None:
            types.append(stmt.returnType)
        if any(type_key(t) == 'internal' for t in types):
            self.report('internal', f'function "{name}" takes or returns "internal"')

    def check_function_path(self, stmt, name):
        language = option(stmt, 'language').arg.sval if option(stmt, 'language') else 'sql'
        path = None
        for elem in stmt.options or ():
            if elem.defname == 'set' and elem.arg.name == 'search_path':
                path = [a.val.sval for a in elem.arg.args or ()]
        definer = option(stmt, 'security')
        if definer is not None and definer.arg.boolval and path is None:
            self.report('definer', f'function "{name}" is SECURITY DEFINER without search_path')
        if path is not None and (not set(path) <= SAFE_PATH or path[-1:] != ['pg_temp']):
            self.report('unsafe-path', f'the search_path of "{name}" has to hold only '
                        'pg_catalog and qml, and end with pg_temp')
        if language == 'c' or stmt.sql_body is not None:
            return
        if path is None:
            self.report('body-path', f'function "{name}" resolves its body on every call: '
                        'pin its search_path, or use BEGIN ATOMIC or RETURN')
        self.check_body(option(stmt, 'as').arg[0].sval, stmt, language, name)

    def check_body(self, body, stmt, language, name):
        try:
            if language == 'sql':
                for item in parse_sql(body):
                    for message in unqualified(item.stmt, self.builtins):
                        self.report('unqualified', f'in "{name}": {message}')
            elif language == 'plpgsql':
                for query in plpgsql_queries(stmt, body):
                    for message in unqualified(query, self.builtins):
                        self.report('unqualified', f'in "{name}": {message}')
            else:
                self.report('statement', f'language "{language}" is not expected')
        except ParseError as error:
            self.report('syntax', f'in "{name}": {error}')

    def on_GrantStmt(self, stmt):
        public = any(g.roletype == enums.RoleSpecType.ROLESPEC_PUBLIC for g in stmt.grantees)
        if stmt.is_grant:
            if public and not self.opens_own(stmt):
                self.report('grant-public', 'GRANT ... TO PUBLIC of more than EXECUTE on functions, '
                            'SELECT on views and USAGE on types, by their names')
            return
        kinds = (enums.ObjectType.OBJECT_FUNCTION, enums.ObjectType.OBJECT_PROCEDURE,
                 enums.ObjectType.OBJECT_ROUTINE)
        if not public or stmt.objtype not in kinds or stmt.privileges:
            return
        if stmt.targtype == enums.GrantTargetType.ACL_TARGET_ALL_IN_SCHEMA:
            # Holds for what exists by now.
            for schema in strings(stmt.objects):
                self.revoked_schemas.append((schema, len(self.functions)))
        else:
            self.revoked.update(object_key(o) for o in stmt.objects)

    def opens_own(self, stmt):
        """Functions and views that check who asks can be open; schemas, tables and the like not."""
        kinds = enums.ObjectType
        wanted = {kinds.OBJECT_FUNCTION: ('execute', None), kinds.OBJECT_PROCEDURE: ('execute', None),
                  kinds.OBJECT_TABLE: ('select', 'view'), kinds.OBJECT_TYPE: ('usage', 'type')}
        privilege, kind = wanted.get(stmt.objtype, (None, None))
        if stmt.targtype != enums.GrantTargetType.ACL_TARGET_OBJECT or stmt.grant_option \
                or [(p.priv_name, p.cols) for p in stmt.privileges or ()] != [(privilege, None)]:
            return False
        if kind is None:
            return all(any(object_key(o) in keys for _, keys, _ in self.functions)
                       for o in stmt.objects)
        own = [names for k, names, _ in self.needs_comment if k == kind]
        return all({range_name(o) if kind == 'view' else '.'.join(strings(o))} in own
                   for o in stmt.objects)

    def on_CommentStmt(self, stmt):
        kinds = enums.ObjectType
        obj = stmt.object
        if not stmt.comment:
            self.report('comment', 'empty comment')
        elif stmt.objtype in (kinds.OBJECT_FUNCTION, kinds.OBJECT_PROCEDURE,
                              kinds.OBJECT_ROUTINE):
            self.comments.add(('function', object_key(obj)))
        elif stmt.objtype in (kinds.OBJECT_TYPE, kinds.OBJECT_DOMAIN):
            self.comments.add(('type', '.'.join(strings(obj.names))))
        elif stmt.objtype == kinds.OBJECT_SCHEMA:
            self.comments.add(('schema', obj.sval))
        else:
            kind = stmt.objtype.name[len('OBJECT_'):].lower()
            self.comments.add((kind, '.'.join(strings(obj))))

    # The script as a whole

    def check_revokes(self):
        for number, (name, keys, line) in enumerate(self.functions):
            by_schema = any(name.startswith(schema + '.') and number < count
                            for schema, count in self.revoked_schemas)
            if not by_schema and not keys & (self.revoked | self.dropped):
                self.report('revoke', f'no REVOKE ALL ON FUNCTION {name} FROM PUBLIC', line)

    def check_comments(self):
        for kind, keys, line in self.needs_comment:
            if kind == 'function' and keys & self.dropped:
                continue
            if not any((kind, key) in self.comments for key in keys):
                name = min((k if isinstance(k, str) else k[0]) for k in keys)
                self.report('comment', f'no COMMENT ON {kind.upper()} {name}', line)


def plpgsql_queries(stmt, body):
    """The SQL statements and expressions of a PL/pgSQL body, parsed."""
    queries = []

    def walk(node):
        if isinstance(node, dict):
            query = node.get('PLpgSQL_expr', {}).get('query')
            if query is not None:
                queries.append(query)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(parse_plpgsql(plpgsql_function(stmt, body)))
    for query in queries:
        yield from parse_query(query)


def plpgsql_function(stmt, body):
    """A function with the same body and parameter names, which is all the parser needs."""
    names = ', '.join(f'"{p.name}" text' for p in stmt.parameters or () if p.name)
    trigger = stmt.returnType is not None and type_key(stmt.returnType) == 'trigger'
    return (f'CREATE FUNCTION f({names}) RETURNS {"trigger" if trigger else "void"} '
            f'LANGUAGE plpgsql AS $qml_lint${body}$qml_lint$')


def parse_query(query):
    """A statement, an expression or an assignment of PL/pgSQL."""
    for candidate in (query, 'SELECT ' + query, 'SELECT ' + query.split(':=', 1)[-1]):
        try:
            return [item.stmt for item in parse_sql(candidate)]
        except ParseError:
            continue
    raise ParseError(f'cannot parse "{query}"')


# Self-test -----------------------------------------------------------------

GOOD = r'''\echo Use "CREATE EXTENSION qml" to load this file. \quit

SET LOCAL search_path = pg_catalog, pg_temp;

CREATE SCHEMA qml;
REVOKE ALL ON SCHEMA qml FROM PUBLIC;
COMMENT ON SCHEMA qml IS 'x';

CREATE TYPE qml.state AS ENUM ('a', 'b');
COMMENT ON TYPE qml.state IS 'x';

CREATE TABLE qml.thing (
	id bigint NOT NULL PRIMARY KEY,
	state qml.state NOT NULL
);
COMMENT ON TABLE qml.thing IS 'x';
COMMENT ON COLUMN qml.thing.id IS 'x';
COMMENT ON COLUMN qml.thing.state IS 'x';
SELECT pg_extension_config_dump('qml.thing', '');

CREATE SEQUENCE qml.counter;
COMMENT ON SEQUENCE qml.counter IS 'x';

CREATE VIEW qml.job WITH (security_barrier) AS
	WITH t AS (SELECT id, state FROM qml.thing WHERE id > 0)
	SELECT t.id, lower(t.state::text) AS name FROM t;
COMMENT ON VIEW qml.job IS 'x';
COMMENT ON COLUMN qml.job.id IS 'x';
COMMENT ON COLUMN qml.job.name IS 'x';

CREATE FUNCTION @extschema@.qml_add(a int, b text DEFAULT 'x', OUT c bigint) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'qml_add';
REVOKE ALL ON FUNCTION @extschema@.qml_add(int, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.qml_add(int, text) IS 'x';

CREATE FUNCTION qml.body() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, qml, pg_temp
	AS $$ SELECT count(*) FROM qml.thing $$;
COMMENT ON FUNCTION qml.body() IS 'x';

CREATE FUNCTION qml.block(n int) RETURNS void LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
	AS $$ BEGIN n := abs(n); PERFORM id FROM qml.thing WHERE id = n; END $$;
COMMENT ON FUNCTION qml.block(int) IS 'x';

CREATE FUNCTION qml.atomic() RETURNS bigint LANGUAGE sql RETURN nextval('qml.counter');
COMMENT ON FUNCTION qml.atomic() IS 'x';
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA qml FROM PUBLIC;

CREATE FUNCTION qml.once() RETURNS void AS 'MODULE_PATHNAME', 'qml_once' LANGUAGE C;
SELECT qml.once();
DROP FUNCTION qml.once();

GRANT EXECUTE ON FUNCTION qml.atomic() TO PUBLIC;
GRANT SELECT ON TABLE qml.job TO PUBLIC;
GRANT USAGE ON TYPE qml.state TO PUBLIC;
'''

# (rule, text to replace, replacement)
BROKEN = [
    ('guard', r'\echo Use "CREATE EXTENSION qml" to load this file. \quit', ''),
    ('guard', 'CREATE SCHEMA qml;', 'CREATE SCHEMA qml;\n\\set x 1'),
    ('search-path-first', 'SET LOCAL search_path = pg_catalog, pg_temp;', ''),
    ('search-path-first', 'SET LOCAL', 'SET'),
    ('search-path-first', '= pg_catalog, pg_temp;', '= pg_catalog, public, pg_temp;'),
    ('search-path-first', 'CREATE SEQUENCE', 'SET LOCAL check_function_bodies = off;\nCREATE SEQUENCE'),
    ('plain-create', 'CREATE SCHEMA qml', 'CREATE SCHEMA IF NOT EXISTS qml'),
    ('plain-create', 'CREATE TABLE qml', 'CREATE TABLE IF NOT EXISTS qml'),
    ('plain-create', 'CREATE VIEW', 'CREATE OR REPLACE VIEW'),
    ('plain-create', 'CREATE FUNCTION qml.body', 'CREATE OR REPLACE FUNCTION qml.body'),
    ('qualified-create', 'CREATE TYPE qml.state', 'CREATE TYPE state'),
    ('qualified-create', 'CREATE TABLE qml.thing', 'CREATE TABLE thing'),
    ('qualified-create', 'CREATE SEQUENCE qml.counter', 'CREATE SEQUENCE counter'),
    ('qualified-create', 'CREATE VIEW qml.job', 'CREATE VIEW job'),
    ('qualified-create', 'CREATE FUNCTION @extschema@.qml_add', 'CREATE FUNCTION qml_add'),
    ('quoted-extschema', "IS 'x'", "IS '@extschema@'"),
    ('quoted-extschema', 'CREATE FUNCTION @extschema@.', 'CREATE FUNCTION "@extschema@".'),
    ('quoted-extschema', 'AS $$ SELECT count(*)', 'AS $$ SELECT @extschema@.count(*)'),
    ('definer', '\tSET search_path = pg_catalog, qml, pg_temp\n', ''),
    ('unsafe-path', 'pg_catalog, qml, pg_temp', 'pg_catalog, public, pg_temp'),
    ('unsafe-path', 'pg_catalog, qml, pg_temp', 'pg_temp, pg_catalog'),
    ('unsafe-path', 'pg_catalog, qml, pg_temp', 'pg_catalog'),
    ('body-path', '\tSET search_path = pg_catalog, pg_temp\n', ''),
    ('unqualified', 'FROM qml.thing WHERE id > 0', 'FROM thing WHERE id > 0'),
    ('unqualified', 'lower(t', 'lowr(t'),
    ('unqualified', 'state qml.state', 'state state'),
    ('unqualified', 'SELECT count(*) FROM qml.thing', 'SELECT count(*) FROM thing'),
    ('unqualified', 'PERFORM id FROM qml.thing', 'PERFORM id FROM thing'),
    ('unqualified', 'abs(n)', 'absolute(n)'),
    ('unqualified', "nextval('qml.counter')", "nextval('counter')"),
    ('unqualified', "config_dump('qml.thing'", "config_dump('thing'"),
    ('internal', 'a int, b text', 'a internal, b text'),
    ('internal', ', OUT c bigint) RETURNS bigint', ') RETURNS internal'),
    ('grant-public', 'REVOKE ALL ON SCHEMA qml FROM', 'GRANT USAGE ON SCHEMA qml TO'),
    ('grant-public', 'GRANT SELECT ON TABLE qml.job TO', 'GRANT SELECT ON TABLE qml.thing TO'),
    ('grant-public', 'GRANT SELECT ON TABLE qml.job TO', 'GRANT ALL ON TABLE qml.job TO'),
    ('grant-public', 'GRANT SELECT ON TABLE qml.job TO', 'GRANT SELECT, UPDATE ON TABLE qml.job TO'),
    ('grant-public', 'GRANT SELECT ON TABLE qml.job TO', 'GRANT USAGE ON SEQUENCE qml.counter TO'),
    ('grant-public', 'GRANT EXECUTE ON FUNCTION qml.atomic()', 'GRANT EXECUTE ON FUNCTION qml.other()'),
    ('grant-public', 'GRANT EXECUTE ON FUNCTION qml.atomic()', 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA qml'),
    ('revoke', 'REVOKE ALL ON FUNCTION @extschema@.qml_add(int, text) FROM PUBLIC;', ''),
    ('revoke', 'qml_add(int, text) FROM', 'qml_add(int, int) FROM'),
    ('revoke', 'REVOKE ALL ON ALL FUNCTIONS IN SCHEMA qml FROM PUBLIC;', ''),
    ('revoke', 'REVOKE ALL ON ALL FUNCTIONS IN SCHEMA qml FROM PUBLIC;\n',
     'REVOKE ALL ON ALL FUNCTIONS IN SCHEMA qml FROM PUBLIC;\n'
     'CREATE FUNCTION qml.late() RETURNS int LANGUAGE sql RETURN 1;\n'),
    ('comment', "COMMENT ON SCHEMA qml IS 'x';", ''),
    ('comment', "COMMENT ON TYPE qml.state IS 'x';", ''),
    ('comment', "COMMENT ON TABLE qml.thing IS 'x';", ''),
    ('comment', "COMMENT ON COLUMN qml.thing.state IS 'x';", ''),
    ('comment', "COMMENT ON SEQUENCE qml.counter IS 'x';", ''),
    ('comment', "COMMENT ON VIEW qml.job IS 'x';", ''),
    ('comment', "COMMENT ON COLUMN qml.job.name IS 'x';", ''),
    ('comment', "COMMENT ON FUNCTION @extschema@.qml_add(int, text) IS 'x';", ''),
    ('star', 'SELECT t.id, lower(t.state::text) AS name FROM t', 'SELECT * FROM t'),
    ('role', 'CREATE SEQUENCE', 'CREATE ROLE qml_admin;\nCREATE SEQUENCE'),
    ('statement', 'DROP FUNCTION qml.once()', 'DROP FUNCTION qml.other()'),
    ('statement', 'DROP FUNCTION qml.once()', 'DROP FUNCTION IF EXISTS qml.once()'),
    ('statement', 'DROP FUNCTION qml.once()', 'DROP FUNCTION qml.once() CASCADE'),
    ('revoke', 'DROP FUNCTION qml.once();', ''),
    ('statement', 'CREATE SEQUENCE', 'DO $$ BEGIN END $$;\nCREATE SEQUENCE'),
    ('syntax', 'CREATE SEQUENCE', 'CREATE SEQENCE'),
]


def self_test(builtins):
    failures = 0
    for finding in Lint(GOOD, builtins).findings:
        print(f'self-test: false alarm: {finding}')
        failures += 1
    for rule, old, new in BROKEN:
        if old not in GOOD:
            print(f'self-test: nothing to break for rule "{rule}": {old!r}')
            failures += 1
        elif rule not in {f.rule for f in Lint(GOOD.replace(old, new, 1), builtins).findings}:
            print(f'self-test: rule "{rule}" missed {new!r}')
            failures += 1
    update = GOOD.replace('CREATE FUNCTION qml.body', 'CREATE OR REPLACE FUNCTION qml.body')
    if Lint(update, builtins, is_update=True).findings:
        print('self-test: OR REPLACE of a function is refused in an update script')
        failures += 1
    print(f'script lint self-test: {len(BROKEN) + 2 - failures} of {len(BROKEN) + 2} as expected')
    return failures == 0


# ---------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description='lint extension scripts')
    parser.add_argument('--sharedir', help='where postgres.bki is (default: ask pg_config)')
    parser.add_argument('--self-test', action='store_true')
    parser.add_argument('scripts', nargs='*')
    args = parser.parse_args()
    sharedir = args.sharedir or subprocess.run(
        [os.environ.get('PG_CONFIG', 'pg_config'), '--sharedir'],
        check=True, capture_output=True, text=True).stdout.strip()
    builtins = Builtins(sharedir)

    if args.self_test:
        return 0 if self_test(builtins) else 1
    if not args.scripts:
        parser.error('no scripts')
    bad = 0
    for path in args.scripts:
        is_update = os.path.basename(path).count('--') > 1
        with open(path, encoding='utf-8') as script:
            findings = Lint(script.read(), builtins, is_update).findings
        for finding in sorted(findings, key=lambda f: f.line):
            print(f'{path}:{finding.line}: {finding.rule}: {finding.message}')
        bad += len(findings)
    print(f'script lint: {len(args.scripts)} scripts, {bad} findings')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
