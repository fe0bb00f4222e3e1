/*
 * load.h
 *		How busy the server is.
 */
#ifndef QML_LOAD_H
#define QML_LOAD_H

extern double qml_load_sample(void);

#endif
